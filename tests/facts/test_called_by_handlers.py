"""A handler of a signal calls the library too, or raises: whatever is under way comes to its end before."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from forking import ended, in_child
from harness.wait import TooLate
from netns import Hosts, eventually
from traces import NOTHING, rules

import tcpcp
from tcpcp.endpoint.new_connections import NewConnections
from tcpcp.kernel import fields, netfilter, polling

#: How long a child may take that does not wait for itself.
_PATIENCE_S = 10


@pytest.fixture
def listener(hosts: Hosts) -> Iterator[socket.socket]:
    """The thread is on *here*."""
    with hosts.here.entered(), socket.create_server((hosts.here_ip[4], 0)) as made:
        yield made


def signalled(call: Callable[..., Any]) -> Callable[..., Any]:
    """As *call*; when it is done the signal comes."""

    def one(*arguments: Any, **named: Any) -> Any:
        found = call(*arguments, **named)
        os.kill(os.getpid(), signal.SIGUSR1)
        return found

    return one


def comes_to_its_end(action: Callable[[], object], handler: Callable[[], object]) -> bool:
    """Whether *action* and *handler* do, in a process of their own, and the handler was called."""
    called = []

    def handle(*_: object) -> None:
        called.append(None)
        if len(called) == 1:
            handler()

    def act() -> bool:
        signal.signal(signal.SIGUSR1, handle)
        action()
        return bool(called)

    pid = in_child(act)
    try:
        eventually(lambda: has_ended(pid), "its end", _PATIENCE_S)
    except TooLate:
        os.kill(pid, signal.SIGKILL)  # it may hold off all other signals
    return ended(pid) == 0


def has_ended(pid: int) -> bool:
    """It can be waited for still."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


@pytest.mark.parametrize("call", ("refresh", "release"))
def test_new_connections(listener: socket.socket, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The handler of SIGTERM lets them through, at any moment."""

    def act() -> None:
        held = tcpcp.hold_new(listener)
        helds.append(held)
        monkeypatch.setattr(netfilter.Netlink, "change", signalled(netfilter.Netlink.change))
        getattr(held, call)()

    helds: list[NewConnections] = []
    assert comes_to_its_end(act, lambda: helds[0].release())


def test_prepare(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes long; the handler hands over at once."""
    sock, _ = hosts.connect()
    monkeypatch.setattr(fields, "_made", [])
    monkeypatch.setattr(fields, "Reader", signalled(fields.Reader))

    def hand_over() -> None:
        tcpcp.get(sock)
        tcpcp.release(sock)

    with hosts.here.entered():
        assert comes_to_its_end(tcpcp.prepare, hand_over)


def interrupt() -> None:
    raise KeyboardInterrupt


def test_interrupted_hold(hosts: Hosts, listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has what would let them through again."""
    for name in ("_make", "__init__"):

        def act(name: str = name) -> None:
            with monkeypatch.context() as patch:
                patch.setattr(NewConnections, name, signalled(getattr(NewConnections, name)))
                with pytest.raises(KeyboardInterrupt):
                    tcpcp.hold_new(listener)
            assert rules(hosts.here) == NOTHING

        assert comes_to_its_end(act, interrupt)


def test_interrupted_drain(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The listener blocks as before; what was accepted is closed."""
    with socket.create_connection(listener.getsockname()) as peer:
        peer.settimeout(_PATIENCE_S)

        def act() -> None:
            with monkeypatch.context() as patch:
                patch.setattr(os, "set_blocking", signalled(os.set_blocking))
                with pytest.raises(KeyboardInterrupt):
                    tcpcp.drain(listener)
            assert os.get_blocking(listener.fileno())
            assert polling.accept(listener) is None

        assert comes_to_its_end(act, interrupt)
        assert peer.recv(1) == b""
