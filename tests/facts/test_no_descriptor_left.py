"""The process has no descriptor left, or only a few: an error of the library's, and nothing has changed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import socket
from collections.abc import Callable, Iterator

import pytest
from forking import ended, in_child
from netns import Hosts
from passing import assert_no_reset, wait_state

import tcpcp
from tcpcp.endpoint import congestion, fingerprint, same_path
from tcpcp.kernel import fields, tcp_repair
from tcpcp.record.ici import State

#: More than any call needs at once.
_MOST = 8


@contextlib.contextmanager
def left(number: int) -> Iterator[None]:
    """So many can be opened while the block runs."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, before[1]))
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    for _ in range(number):
        os.close(taken.pop())
    try:
        yield
    finally:
        for one in taken:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Stands:
    """What has a ``fileno()``: a duplicate is made of it."""

    def __init__(self, sock: socket.socket) -> None:
        self.fileno = sock.fileno


def first_that_works(call: Callable[[], object], check: Callable[[], None]) -> None:
    """Try *call* with 0, 1, 2, ... descriptors left; as long as it fails *check* has to find nothing changed."""
    for number in range(_MOST):
        try:
            with left(number):
                call()
            return
        except tcpcp.TcpcpError as exc:
            assert "Too many open files" in str(exc), exc
        check()
    raise AssertionError(f"not with {_MOST} descriptors")


def runs(sock: socket.socket, peer: socket.socket) -> Callable[[], None]:
    def check() -> None:
        assert not tcp_repair.get_repair(sock)
        peer.sendall(b"1")
        sock.settimeout(3)
        assert sock.recv(1) == b"1"

    return check


def held(sock: socket.socket) -> Callable[[], None]:
    def check() -> None:
        assert tcp_repair.get_repair(sock)
        tcpcp.renew(sock)

    return check


def half_closed(hosts: Hosts, kind: str) -> tuple[socket.socket, socket.socket]:
    sock, peer = hosts.connect(kind)
    sock.shutdown(socket.SHUT_WR)
    wait_state(sock, State.FIN_WAIT2)
    return sock, peer


@pytest.mark.parametrize("prepared", (False, True))
@pytest.mark.parametrize("stands", (False, True))
def test_get_and_resume(hosts: Hosts, prepared: bool, stands: bool) -> None:
    sock, peer = hosts.connect()
    given = Stands(sock) if stands else sock

    def check() -> bool:
        with hosts.here.entered():
            if prepared:
                tcpcp.prepare()
            first_that_works(lambda: tcpcp.get(given), runs(sock, peer))
            first_that_works(lambda: tcpcp.renew(given), held(sock))
            first_that_works(lambda: tcpcp.resume(given), held(sock))
            runs(sock, peer)()
        return True

    assert ended(in_child(check)) == 0


@pytest.mark.parametrize("kind", ("v4", "v6"))
@pytest.mark.parametrize("closed", (False, True))
@pytest.mark.parametrize("same", (False, True))
def test_create_and_activate(hosts: Hosts, kind: str, closed: bool, same: bool) -> None:
    sock, peer = half_closed(hosts, kind) if closed else hosts.connect(kind)

    def check() -> bool:
        made: list[socket.socket] = []
        with hosts.here.entered():
            ici = tcpcp.get(sock)
            tcpcp.release(sock)
            wanted = dataclasses.replace(ici, congestion=dataclasses.replace(ici.congestion, cwnd=77))
            first_that_works(lambda: made.append(tcpcp.create(wanted, same_path=same)), lambda: None)
            first_that_works(lambda: tcpcp.activate(made[0]), held(made[0]))
            runs(made[0], peer)()
        return True

    assert ended(in_child(check)) == 0
    assert_no_reset(hosts)


def test_what_was_refused_then_is_not_refused_later(hosts: Hosts) -> None:
    """What was not made for want of a descriptor is made when there is one."""

    def ready() -> bool:
        apart = [fingerprint.tells_options_apart(family) for family in (socket.AF_INET, socket.AF_INET6)]
        return congestion.ready() and fields.ready() and all(apart)

    def check() -> bool:
        congestion._made.clear()
        fields._made.clear()
        fingerprint._found.clear()
        for number in range(_MOST):
            with left(number), contextlib.suppress(tcpcp.TcpcpError):
                tcpcp.prepare()
                fingerprint.tells_options_apart(socket.AF_INET)
        tcpcp.prepare()
        return ready()

    with hosts.here.entered():
        tcpcp.prepare()
        if not ready():
            pytest.skip(f"the kernel refuses: {congestion._refused} {fields._refused}")
        assert ended(in_child(check)) == 0


def test_routes_are_not_left_behind(hosts: Hosts) -> None:
    sock, _ = hosts.connect()
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.resume(sock)
    wanted = dataclasses.replace(ici, congestion=dataclasses.replace(ici.congestion, cwnd=77))

    def check() -> bool:
        with hosts.here.entered():
            for number in range(2):
                with left(number), same_path.InitialWindows([wanted]):
                    pass
            with same_path.InitialWindows([wanted]) as windows:
                made = list(windows.routes)
                with left(0):
                    windows.__exit__(None, None, None)
            with same_path.InitialWindows([wanted]) as again:  # it could be made, so it was removed
                return bool(made) and again.routes == made

    assert ended(in_child(check)) == 0


def test_activate_says_which_connection(hosts: Hosts) -> None:
    sock, _ = hosts.connect()
    with hosts.here.entered():
        tcpcp.get(sock)
        name = f"{hosts.here_ip[4]}:{sock.getsockname()[1]} - {hosts.there_ip[4]}"
        with left(0), pytest.raises(tcpcp.KernelError, match=f"for {name}:.*open files"):
            tcpcp.activate(sock)
        tcpcp.renew(sock)
        tcpcp.activate(sock)
