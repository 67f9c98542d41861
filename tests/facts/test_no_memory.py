"""There is no memory at a bad moment of a call: what is then is what was before."""

from __future__ import annotations

import pytest
from netns import Hosts, eventually
from traces import rules

import tcpcp
from tcpcp.endpoint import calls, holding
from tcpcp.kernel import tcp_repair


@pytest.mark.parametrize("room", [(calls, "left_in"), (calls, "_stand_still")], ids=("left", "still"))
def test_no_memory_when_it_has_been_read(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, room: tuple[object, str]
) -> None:
    """The socket is in repair mode by then, and goes on as before."""
    sock, peer = hosts.connect()
    peer.sendall(b"waits to be read")
    eventually(lambda: tcp_repair.get_inq(sock) == 16, "arrived")
    with hosts.here.entered():
        with monkeypatch.context() as patch:
            patch.setattr(*room, out_of_memory)
            with pytest.raises(MemoryError):
                tcpcp.get(sock)
        assert not tcp_repair.get_repair(sock)
        assert rules(hosts.here).holding == 0
    assert sock.recv(100) == b"waits to be read"
    sock.sendall(b"goes on")
    assert peer.recv(100) == b"goes on"


@pytest.mark.parametrize("call", ("release", "resume", "activate"))
def test_no_memory_when_it_is_about_to_go(hosts: Hosts, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Nothing has changed; it can be asked for again."""
    sock, _ = hosts.connect()
    with hosts.here.entered():
        tcpcp.get(sock)
        with monkeypatch.context() as patch:
            patch.setattr(holding, "id", out_of_memory, raising=False)
            with pytest.raises(MemoryError):
                getattr(tcpcp, call)(sock)
        getattr(tcpcp, call)(sock)


def out_of_memory(*_: object) -> None:
    raise MemoryError
