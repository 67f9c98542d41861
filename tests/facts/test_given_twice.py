"""The same fresh socket is given to create() twice at once: one has it whole, the other touches nothing of it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

import pytest
from meddling import after_call
from netns import Hosts, eventually
from passing import assert_no_reset
from test_isolation_of_processes import child
from traces import changed, everything, rules

import tcpcp
from tcpcp.endpoint import builder
from tcpcp.record.ici import Ici

#: More calls than the library makes for one connection.
_MOST = 400


def passed(hosts: Hosts) -> tuple[Ici, socket.socket]:
    """The image of a connection that its origin has released, and its peer."""
    sock, peer = hosts.connect()
    peer.settimeout(5)
    sock.sendall(b"ours")
    peer.sendall(b"theirs")
    eventually(lambda: sock.recv(100, socket.MSG_PEEK) == b"theirs", "arrived")
    ici = tcpcp.get(sock)
    tcpcp.release(sock)
    return ici, peer


def fresh(ici: Ici, *, bound: bool) -> socket.socket:
    """To be given; bound it need not be bound by the library, which the kernel does once at most."""
    given = socket.socket()
    if bound:
        given.bind((str(ici.local.ip), ici.local.port))
    return given


def create(ici: Ici, given: socket.socket, *, run: bool = False) -> Exception | None:
    """Why it has not become *ici*; anything else than an error of the library's escapes."""
    try:
        made = tcpcp.create(ici, sock=given)
        assert made is given
        if run:
            tcpcp.activate(given)
    except tcpcp.TcpcpError as exc:
        return exc
    return None


def goes_on(given: socket.socket, peer: socket.socket) -> None:
    """What it has is all there, once, in both directions."""
    given.settimeout(5)
    given.sendall(b"!")
    peer.sendall(b"!")
    for one, expected in ((given, b"theirs!"), (peer, b"ours!")):
        got = b""
        while len(got) < len(expected):
            got += one.recv(100)
        assert got == expected


@pytest.mark.parametrize("run", (False, True), ids=("created", "activated"))
@pytest.mark.parametrize("bound", (False, True), ids=("fresh", "bound"))
def test_by_two_threads(hosts: Hosts, bound: bool, run: bool) -> None:
    """The second comes after each call that the library makes for the first."""
    with hosts.here.entered():
        tcpcp.prepare()
        for number in range(1, _MOST):
            ici, peer = passed(hosts)
            given = fresh(ici, bound=bound)
            second: list[Exception | None] = []

            def other() -> None:
                thread = threading.Thread(target=lambda: second.append(create(ici, given, run=run)))  # noqa: B023
                thread.start()
                thread.join()

            with after_call(number, other) as meddling:
                first = create(ici, given)
            if meddling.done:
                assert (first is None) is not (second[0] is None), (number, first, second)
            else:
                assert first is None
            if first is None or not run:
                tcpcp.activate(given)
            goes_on(given, peer)
            if not meddling.done:
                assert number > 10
                break
        else:
            pytest.fail("it does not end")
    assert_no_reset(hosts)


def test_twice_in_one_call(hosts: Hosts) -> None:
    with hosts.here.entered():
        (ici, peer), (other, _) = passed(hosts), passed(hosts)
        given = fresh(ici, bound=False)
        before, held = everything(given), rules(hosts.here)
        with pytest.raises(tcpcp.AlreadyGot):
            tcpcp.create_many([ici, other], socks=[given, given])
        assert (changed(given, before), rules(hosts.here)) == ({}, held)
        tcpcp.activate(tcpcp.create(ici, sock=given))
        goes_on(given, peer)


@pytest.mark.parametrize("second", ("begin", "complete"))
@pytest.mark.parametrize("bound", (False, True), ids=("fresh", "bound"))
def test_by_two_processes(hosts: Hosts, monkeypatch: pytest.MonkeyPatch, bound: bool, second: str) -> None:
    """A child has the socket too: it comes before the parent has begun with it, or in the middle."""
    (told, tells), (goes, go) = os.pipe(), os.pipe()
    with hosts.here.entered():
        ici, peer = passed(hosts)
        given = fresh(ici, bound=bound)

        def late() -> None:
            assert os.read(goes, 1)
            error = create(ici, given)
            os.write(tells, b"1" if isinstance(error, tcpcp.TcpcpError) else b"0")

        with child(late) as one:
            one.send()
            called: Callable[..., object] = getattr(builder, second)

            def with_another(*args: object, **named: object) -> object:
                os.write(go, b".")
                assert os.read(told, 1) == b"1"
                return called(*args, **named)

            monkeypatch.setattr(builder, second, with_another)
            tcpcp.create(ici, sock=given)
            one.wait()
            tcpcp.activate(given)
            goes_on(given, peer)
            one.end()
    assert_no_reset(hosts)
