"""Each system call of each call of the library fails once: what is then is what was before."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import socket
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from failing_calls import Calls, nth_call_fails
from netns import Hosts, eventually
from passing import deaf, state_of, wait_state
from traces import changed, everything, is_held, rules, sent_by

import tcpcp
from tcpcp.endpoint import preparation, reader
from tcpcp.kernel import fields, tcp_repair
from tcpcp.record.ici import Ici, State

#: More calls than any call of the library makes for two connections.
_MOST = 2000
#: What takes a change back that reading needs: when that fails, nobody else can do it.
PUTS_BACK = f"setsockopt({int(socket.SOL_SOCKET)}, {int(socket.SO_OOBINLINE)}, 0)"
KINDS = pytest.mark.parametrize("answers", (False, True), ids=("calls", "answers"))


def each_failure(
    answers: bool, attempt: Callable[[], object], before: Callable[[], object]
) -> Iterator[Calls]:
    """Carry out *attempt* with each of its system calls failing once, *before* that; yield after each.

    Whatever is raised is an error of the library's. Ends when *attempt* needs fewer calls than were to fail.
    """
    bare: list[str] = []
    for number in range(1, _MOST):
        before()
        with nth_call_fails(number, answers) as calls:
            try:
                attempt()
            except tcpcp.TcpcpError as exc:
                calls.error = f"{calls.failed}: {exc}"
            except OSError as exc:
                bare.append(f"{calls.failed}: {traceback.extract_tb(exc.__traceback__)[-2]}")
        if not calls.failed:
            assert not bare, "\n".join(bare)
            return
        yield calls
    pytest.fail("it does not end")


def busy(hosts: Hosts) -> tuple[socket.socket, socket.socket]:
    """A connection with something in each queue, and an option."""
    sock, peer = hosts.connect()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.sendall(b"waits to be read")
    eventually(lambda: tcp_repair.get_inq(sock) == 16, "arrived")
    return sock, peer


def open_sockets() -> int:
    """Of this process; those of tests before this one do not count."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def get_as_the_first(socks: list[socket.socket]) -> None:
    """As in a process that has met none of their kind: so everything is asked of them."""
    preparation._met.clear()
    reader._reading = reader._Reading()
    tcpcp.get_many(socks)


@KINDS
def test_get(hosts: Hosts, answers: bool) -> None:
    """After a failure no repair mode, nothing held, every option as it was."""
    pairs = [busy(hosts), hosts.connect("v6")]
    socks = [sock for sock, _ in pairs]
    with hosts.here.entered():
        tcpcp.prepare()
        tcpcp.get_many(socks)
        tcpcp.resume_many(socks)
        with deaf(hosts.there):
            socks[0].sendall(b"on the way")
            before = [everything(sock) for sock in socks]
            descriptors = open_sockets()
            done = 0
            for calls in each_failure(answers, lambda: get_as_the_first(socks), lambda: None):
                if tcp_repair.get_repair(socks[0]):  # it could do without that call
                    tcpcp.resume_many(socks)
                if calls.failed == PUTS_BACK:
                    socks[0].setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 0)
                    socks[1].setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 0)
                assert [changed(*one) for one in zip(socks, before, strict=True)] == [{}, {}], calls
                assert done % 7 and not answers or rules(hosts.here).holding == 0, calls
                done += 1
            assert answers or done > 100
            assert open_sockets() == descriptors
            tcpcp.resume_many(socks)
            assert rules(hosts.here).holding == 0
        assert [changed(*one) for one in zip(socks, before, strict=True)] == [{}, {}]
    assert socks[0].recv(100) == b"waits to be read"
    assert pairs[0][1].recv(100) == b"on the way"


def test_an_option_that_is_not_put_back(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else can do it then, so it is told."""
    monkeypatch.setattr(fields, "look", lambda socks: [None] * len(socks))
    monkeypatch.setattr(fields, "numbers", lambda socks: [None] * len(socks))
    real = socket.socket.setsockopt

    def refuses(sock: socket.socket, *arguments: object) -> None:
        if arguments == (socket.SOL_SOCKET, socket.SO_OOBINLINE, 0):
            raise OSError(errno.ENOMEM, "no memory")
        real(sock, *arguments)  # type: ignore[call-overload]

    sock, _ = busy(hosts)
    with hosts.here.entered():
        with monkeypatch.context() as patched:
            patched.setattr(socket.socket, "setsockopt", refuses, raising=False)
            with pytest.raises(tcpcp.KernelError) as caught:
                tcpcp.get(sock)
        assert caught.value.__notes__ == ["SO_OOBINLINE of the socket is 1 now, and has to be set to 0"]
        assert not tcp_repair.get_repair(sock)


def test_it_runs_though_nobody_knows_what_waits(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    sock, peer = busy(hosts)
    real = tcp_repair.get_outq_nsd

    def refuses(sock: socket.socket) -> int:
        if not tcp_repair.get_repair(sock):
            raise tcpcp.KernelError("ioctl(SIOCOUTQNSD)", errno.ENOMEM)
        return real(sock)

    with hosts.here.entered():
        tcpcp.get(sock)
        monkeypatch.setattr(tcp_repair, "get_outq_nsd", refuses)
        tcpcp.activate(sock)
    sock.sendall(b"on")
    assert peer.recv(10) == b"on"


def passed(hosts: Hosts) -> tuple[list[Ici], list[socket.socket]]:
    """Two connections without sockets, the second half-closed, and their peers."""
    pairs = [busy(hosts), hosts.connect("v6")]
    pairs[1][1].shutdown(socket.SHUT_WR)
    wait_state(pairs[1][0], State.CLOSE_WAIT)
    socks = [sock for sock, _ in pairs]
    with hosts.here.entered():
        icis = tcpcp.get_many(socks)
        tcpcp.release_many(socks)
    return icis, [peer for _, peer in pairs]


@KINDS
def test_create(hosts: Hosts, answers: bool) -> None:
    """After a failure no socket, no segment, and the others are held as they were."""
    icis, peers = passed(hosts)
    made: list[socket.socket] = []
    with hosts.here.entered():
        tcpcp.release_many(tcpcp.create_many(icis))
        held, sent, descriptors = rules(hosts.here), sent_by(hosts, hosts.here), open_sockets()
        done = 0

        def attempt() -> None:
            made.extend(tcpcp.create_many(icis))

        for calls in each_failure(answers, attempt, made.clear):
            if made:  # it could do without that call
                tcpcp.release_many(made)
            else:
                assert calls.failed
            if answers or done % 7 == 0:
                assert hosts.ss(hosts.here, "-tnH") == "", calls
                assert rules(hosts.here) == held, calls
            done += 1
        assert answers or done > 50
        # Segments that were fed to this host count as sent by it, and are its own: see the peers' side below.
        assert hosts.counters(hosts.there)["TcpEstabResets"] == 0
        assert open_sockets() == descriptors + 2
        tcpcp.activate_many(made)
        assert sent
    assert made[0].recv(100) == b"waits to be read"
    for one, peer in zip(made, peers, strict=True):
        one.sendall(b"1")
        assert peer.recv(1) == b"1"


@KINDS
@pytest.mark.parametrize("call", ("activate", "resume", "renew"))
def test_run(hosts: Hosts, call: str, answers: bool) -> None:
    """After a failure it can be called again, and then all is as it was; nothing is held for ever."""
    pairs = [busy(hosts), hosts.connect("v6")]
    socks = [sock for sock, _ in pairs]
    before = [everything(sock) for sock in socks]
    with hosts.here.entered():

        def isolate() -> None:
            tcpcp.get_many(socks)

        def again() -> None:
            for sock in socks:
                with contextlib.suppress(tcpcp.NotGot):
                    tcpcp.resume(sock)

        done = 0
        for calls in each_failure(answers, lambda: getattr(tcpcp, f"{call}_many")(socks), isolate):
            again()
            assert [changed(*one) for one in zip(socks, before, strict=True)] == [{}, {}], calls
            assert done % 5 or rules(hosts.here).holding == 0, calls
            done += 1
        assert answers or done >= 3
        again()
        assert rules(hosts.here).holding == 0
    for sock, peer in pairs:
        sock.sendall(b"1")
        assert peer.recv(1) == b"1"


@KINDS
def test_release(hosts: Hosts, answers: bool) -> None:
    """After a failure the socket is there still, isolated, or it is gone; again, and it is gone and silent."""
    with hosts.here.entered():
        pair = hosts.connect()

        def isolate() -> None:
            nonlocal pair
            pair = hosts.connect()
            tcpcp.get(pair[0])

        done = 0
        for calls in each_failure(answers, lambda: tcpcp.release(pair[0]), isolate):
            sock, peer = pair
            if sock.fileno() >= 0:
                assert tcp_repair.get_repair(sock) or state_of(sock) is State.CLOSE, calls
                with contextlib.suppress(tcpcp.NotGot):
                    tcpcp.release(sock)
                sock.close()
            assert is_held(peer, 0.01), calls
            done += 1
        assert answers or done >= 3
        assert hosts.ss(hosts.here, "-tnH state established").count("\n") <= 1  # the first one
        assert hosts.counters(hosts.there)["TcpEstabResets"] == 0


@pytest.mark.parametrize("error", (errno.ENOBUFS, errno.EIO, errno.EBADMSG))
def test_answers_that_never_come(hosts: Hosts, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """The kernel does what it is told all the same: after the error nothing is isolated."""
    real = socket.socket.recv

    def fails(sock: socket.socket, *arguments: int) -> bytes:
        if sock.family == socket.AF_NETLINK:
            raise OSError(error, os.strerror(error))
        return real(sock, *arguments)

    sock, peer = busy(hosts)
    with hosts.here.entered():
        tcpcp.prepare()
        tcpcp.get(sock)
        tcpcp.resume(sock)  # reads what was answered so far
        before = everything(sock)
        with monkeypatch.context() as patched:
            patched.setattr(socket.socket, "recv", fails, raising=False)
            with pytest.raises(tcpcp.IsolationError):
                tcpcp.get(sock)
            assert rules(hosts.here).holding == 0
        assert changed(sock, before) == {}
        tcpcp.get(sock)
        tcpcp.resume(sock)
        assert rules(hosts.here).holding == 0
    sock.sendall(b"on")
    assert peer.recv(10) == b"on"
