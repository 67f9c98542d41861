"""Two processes that share a socket get it at the same moment: one has it at most, and the other none of it."""

from __future__ import annotations

import os
import socket

import pytest
from netns import Hosts, eventually
from test_isolation_of_processes import child
from traces import is_held, rules

import tcpcp
from tcpcp.endpoint import calls, twins
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import State


@pytest.mark.parametrize("kind", ("v4", "v6"))
def test_both_have_looked_before_either_isolates(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The child has seen that it is not in repair mode, and stands there while the parent gets it."""
    sock, peer = hosts.connect(kind)
    (told, tells), (goes, go) = os.pipe(), os.pipe()
    looked = twins.require_none

    def stops(*args: object) -> None:
        looked(*args)  # type: ignore[arg-type]
        os.write(tells, b".")
        os.read(goes, 1)

    def get_late() -> None:
        monkeypatch.setattr(calls.twins, "require_none", stops)
        with pytest.raises(tcpcp.AlreadyGot, match="another program"):
            tcpcp.get(sock)

    def get_again() -> None:
        monkeypatch.setattr(calls.twins, "require_none", looked)
        tcpcp.get(sock)
        tcpcp.release(sock)

    with hosts.here.entered(), child(get_late, get_again) as one:
        one.send()
        assert os.read(told, 1) == b"."
        tcpcp.get(sock)
        os.write(go, b".")
        one.wait()
        assert is_held(peer)
        tcpcp.resume(sock)
        eventually(lambda: not tcp_repair.get_outq(peer), "acknowledged")
        assert rules(hosts.here).holding == 0
        one.step()  # nothing of the refusal is left
        one.end()


def test_one_that_has_ended(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are bytes to be read still, and no filter by which they could see one another."""
    sock, peer = hosts.connect()
    peer.sendall(b"to be read")
    peer.close()
    eventually(lambda: tcp_repair.get_state(sock) == State.CLOSE_WAIT, "the peer has closed")
    sock.shutdown(socket.SHUT_WR)
    eventually(lambda: tcp_repair.get_state(sock) == State.CLOSE, "it has ended")
    (told, tells), (goes, go) = os.pipe(), os.pipe()
    looked = twins.require_none

    def stops(*args: object) -> None:
        looked(*args)  # type: ignore[arg-type]
        os.write(tells, b".")
        os.read(goes, 1)

    def get_late() -> None:
        monkeypatch.setattr(calls.twins, "require_none", stops)
        with pytest.raises(tcpcp.AlreadyGot):
            tcpcp.get(sock)

    with hosts.here.entered(), child(get_late) as one:
        one.send()
        assert os.read(told, 1) == b"."
        ici = tcpcp.get(sock)
        os.write(go, b".")
        one.wait()
        one.end()
        assert ici.receive_queue.data == b"to be read"
        tcpcp.release(sock)
