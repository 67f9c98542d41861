"""The library's own threads: nobody waits for one that never begins, and where none can be started it is said."""

from __future__ import annotations

import _thread
import errno
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from forking import ended
from netns import Hosts, eventually
from programs import threads_named

import tcpcp
from tcpcp.endpoint.own_thread import OwnThread
from tcpcp.kernel import tcp_repair


class Wrong(Exception):
    """What a body raises."""


def in_child(check: Callable[[], None], deadline_s: float = 10) -> int:
    """How a child ends that makes *check*; it is killed if it hangs, also with all signals blocked."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            check()
            status = 0
        finally:
            os._exit(status)
    killer = threading.Timer(deadline_s, os.kill, (pid, signal.SIGKILL))
    killer.start()
    try:
        return ended(pid)
    finally:
        killer.cancel()


def alive(sock: socket.socket, peer: socket.socket) -> None:
    peer.settimeout(3)
    sock.sendall(b"alive")
    assert peer.recv(100) == b"alive"


# --- a thread without memory ------------------------------------------------------------------------------


def begin_no_thread() -> None:
    """In a child. Its threads are gone before their first line, as one that has no memory for its first frame."""
    real = _thread.start_new_thread

    def start(run: Callable[..., object], arguments: tuple[object, ...], *more: object) -> int:
        return real(int, ())

    _thread.start_new_thread = start
    threading._start_new_thread = start  # type: ignore[attr-defined]  # what threading.Thread calls


@pytest.mark.parametrize("wrong", (False, True))
def test_nobody_waits_for_a_thread_that_never_begins(hosts: Hosts, wrong: bool) -> None:
    """The block ends as with a thread, and lets signals through."""
    sock, peer = hosts.connect()

    def hand_over() -> None:
        begin_no_thread()
        try:
            with tcpcp.passing([sock]) as [ici]:
                if wrong:
                    raise Wrong
        except Wrong:
            alive(sock, peer)
        else:
            made = tcpcp.create(ici)
            tcpcp.activate(made)
            alive(made, peer)
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())

    with hosts.here.entered():
        assert in_child(hand_over) == 0


# --- no room for a thread ---------------------------------------------------------------------------------


def limit_memory(room_bytes: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + room_bytes
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


def test_no_room_for_a_thread(hosts: Hosts) -> None:
    """Of a stack larger than the memory there is: a KernelError, and all is as before."""
    sock, peer = hosts.connect()

    def hand_over() -> None:
        tcpcp.prepare()
        threading.stack_size(512 << 20)
        limit_memory(64 << 20)
        with pytest.raises(tcpcp.KernelError, match="pthread_create") as told, tcpcp.passing([sock]):
            os._exit(2)
        assert told.value.errno == errno.EAGAIN
        assert not tcp_repair.get_repair(sock)
        alive(sock, peer)
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())

    with hosts.here.entered():
        assert in_child(hand_over) == 0


# --- what a thread does -----------------------------------------------------------------------------------


def test_it_is_waited_for() -> None:
    goes_on, done = threading.Event(), []

    def work() -> None:
        goes_on.wait()
        done.append(threading.get_native_id())

    thread = OwnThread("tcpcp test", work)
    thread.start()
    eventually(lambda: len(threads_named("tcpcp test")) == 1, "it has its name")
    goes_on.set()
    thread.join()
    thread.join()
    assert len(done) == 1 and done[0] != threading.get_native_id()


def test_it_ends_although_its_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda one: dropped.append(one.exc_type))
    thread = OwnThread("tcpcp test", lambda: {}["not there"])
    thread.start()
    eventually(lambda: bool(dropped), "it has failed")
    thread.join()
    assert dropped == [KeyError]


def test_not_begun_it_does_nothing_after_join() -> None:
    def end() -> None:
        begin_no_thread()
        done: list[int] = []
        for how in (OwnThread.join, OwnThread.finish):
            thread = OwnThread("tcpcp test", lambda: done.append(1))
            thread.start()
            how(thread)
            thread.join()
            thread._run()  # it begins after all
        assert done == [1]  # by finish()

    assert in_child(end) == 0


def test_from_itself_or_in_a_child_there_is_no_waiting() -> None:
    begun, goes_on = threading.Event(), threading.Event()
    threads: list[OwnThread] = []

    def work() -> None:
        threads[0].join()
        threads[0].finish()
        begun.set()
        goes_on.wait()

    def end() -> None:
        threads[0].join()
        threads[0].finish()

    threads.append(OwnThread("tcpcp test", work))
    threads[0].start()
    assert begun.wait(10)
    assert in_child(end) == 0
    goes_on.set()
    threads[0].join()
