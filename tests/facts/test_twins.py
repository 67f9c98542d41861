"""Two connections with the same two ends, by an interface each: what is done to one is not done to both."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator

import pytest
from netns import Namespace, eventually, ip

import tcpcp
from tcpcp.endpoint import isolation
from tcpcp.kernel import tcp_repair

Pair = tuple[socket.socket, socket.socket]
HERE, THERE = ("fe80::1", 7000), ("fe80::2", 8000)


@pytest.fixture
def twins() -> Iterator[tuple[Pair, Pair]]:
    """Two of them, our ends and the peer's; the thread is in our namespace."""
    here, there = Namespace(), Namespace()
    with here.entered():
        for number in (0, 1):
            ip(f"link add here{number} type veth peer name there{number} netns {there.path}")
            _address(f"here{number}", HERE[0])
            with there.entered():
                _address(f"there{number}", THERE[0])
        with contextlib.ExitStack() as stack:
            yield _connect(stack, there, 0), _connect(stack, there, 1)
    for one in (here, there):
        one.close()


def _address(device: str, address: str) -> None:
    ip(f"link set {device} up addrgenmode none")
    ip(f"addr add {address}/64 dev {device} nodad")


def _connect(stack: contextlib.ExitStack, there: Namespace, number: int) -> Pair:
    with socket.socket(socket.AF_INET6) as listener:
        listener.bind((*HERE, 0, socket.if_nametoindex(f"here{number}")))
        listener.listen()
        with there.entered():
            peer = stack.enter_context(socket.socket(socket.AF_INET6))
            scope = socket.if_nametoindex(f"there{number}")
        peer.bind((*THERE, 0, scope))
        peer.connect((*HERE, 0, scope))
        sock = stack.enter_context(listener.accept()[0])
    for one in (sock, peer):
        one.settimeout(3)
    return sock, peer


def test_refused(twins: tuple[Pair, Pair]) -> None:
    with pytest.raises(tcpcp.Unsupported, match="the same two ends"):
        tcpcp.get(twins[0][0])
    assert_both_run(twins)


def test_both_at_once(twins: tuple[Pair, Pair]) -> None:
    with pytest.raises(tcpcp.Unsupported, match="the same two ends"):
        tcpcp.get_many([sock for sock, _ in twins])
    assert_both_run(twins)


def assert_both_run(twins: tuple[Pair, Pair]) -> None:
    assert not isolation.tables()
    for sock, peer in twins:
        assert not tcp_repair.get_repair(sock)
        for one, other in ((sock, peer), (peer, sock)):
            one.sendall(b"goes on")
            assert other.recv(100) == b"goes on"


def ended() -> str:
    """What ss shows of connections that the peer has closed."""
    command = ["ss", "-tnH", "state", "last-ack"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_passed_when_the_other_has_ended(twins: tuple[Pair, Pair]) -> None:
    (sock, peer), (other, others_peer) = twins
    others_peer.close()
    assert other.recv(1) == b""
    other.close()
    eventually(lambda: not ended(), "its end is acknowledged")
    ici = tcpcp.get(sock)
    tcpcp.release(sock)
    made = tcpcp.create(ici)
    tcpcp.activate(made)
    made.sendall(b"goes on")
    assert peer.recv(100) == b"goes on"
    made.close()
