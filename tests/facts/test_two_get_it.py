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


class Stop:
    """In the place of the last look before the isolation: the child stands there until it may go on."""

    def __init__(self) -> None:
        (self._told, self._tells), (self._goes, self._go) = os.pipe(), os.pipe()
        self._look = twins.require_none

    def __call__(self, *args: object) -> None:
        self._look(*args)  # type: ignore[arg-type]
        os.write(self._tells, b".")
        os.read(self._goes, 1)

    def wait(self) -> None:
        assert os.read(self._told, 1) == b"."

    def go_on(self) -> None:
        os.write(self._go, b".")


@pytest.mark.parametrize("kind", ("v4", "v6"))
def test_both_have_looked_before_either_isolates(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The child has seen that it is not in repair mode, and stands there while the parent gets it."""
    sock, peer = hosts.connect(kind)
    stop, looked = Stop(), twins.require_none

    def get_late() -> None:
        monkeypatch.setattr(calls.twins, "require_none", stop)
        with pytest.raises(tcpcp.AlreadyGot, match="another program"):
            tcpcp.get(sock)

    def get_again() -> None:
        monkeypatch.setattr(calls.twins, "require_none", looked)
        tcpcp.get(sock)
        tcpcp.release(sock)

    with hosts.here.entered(), child(get_late, get_again) as one:
        one.send()
        stop.wait()
        tcpcp.get(sock)
        stop.go_on()
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
    stop = Stop()

    def get_late() -> None:
        monkeypatch.setattr(calls.twins, "require_none", stop)
        with pytest.raises(tcpcp.AlreadyGot):
            tcpcp.get(sock)

    with hosts.here.entered(), child(get_late) as one:
        one.send()
        stop.wait()
        ici = tcpcp.get(sock)
        stop.go_on()
        one.wait()
        one.end()
        assert ici.receive_queue.data == b"to be read"
        tcpcp.release(sock)
