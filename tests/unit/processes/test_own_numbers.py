"""Numbers of a tree become those that it sees itself, and back; without a namespace of its own all stay."""

from __future__ import annotations

import os
import threading

import pytest

from migrate.inventory import needed_pids, of_proc
from migrate.pb.session_pb2 import Surroundings, Task, ThreadSurroundings
from migrate.processes import own_numbers
from migrate.processes.own_numbers import Numbers

#: Of a tree of three tasks here, and of the init of its namespace.
OWN = Numbers({500: 1, 501: 20, 502: 21, 503: 22})


def test_without_a_namespace_all_stay_as_they_are() -> None:
    same = Numbers()
    assert not same.own
    assert (same.inside(501), same.here(501)) == (501, 501)
    assert same.those_inside(iter([501, 7])) == [501, 7]
    around = [Surroundings(pid=501)]
    assert same.surroundings(around)[0] is around[0]


def test_with_one_each_has_another() -> None:
    assert OWN.own
    assert (OWN.inside(502), OWN.here(21)) == (21, 502)
    assert OWN.those_inside([501, 503]) == [20, 22]


def test_a_stranger_has_none() -> None:
    """His number would be somebody else's there: it is never passed on."""
    with pytest.raises(KeyError):
        OWN.inside(20)
    assert OWN.those_inside([501, 20]) == [20]
    assert OWN.here(501) == 0


def test_surroundings_are_copied() -> None:
    around = Surroundings(pid=501, coredump_filter=3, threads=[ThreadSurroundings(tid=502, io_priority=4)])
    (own,) = OWN.surroundings([around])
    assert (own.pid, own.coredump_filter, own.threads[0].tid, own.threads[0].io_priority) == (20, 3, 21, 4)
    assert (around.pid, around.threads[0].tid) == (501, 502)


def test_threads_are_read_and_who_has_ended_is_left_out() -> None:
    going, go = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (going.set(), go.wait()))
    thread.start()
    going.wait()
    try:
        found = own_numbers.read([os.getpid(), 2**22 - 1])
        assert found.inside(os.getpid()) == os.getpid()
        assert found.inside(thread.native_id or 0) == thread.native_id
    finally:
        go.set()
        thread.join()


def test_a_tree_needs_its_own_numbers() -> None:
    tasks = [Task(pid=501, sid=501, pgid=501, tids=[501, 502]), Task(pid=503, sid=501, pgid=501, tids=[503])]
    assert needed_pids.of(tasks, OWN) >= {20, 21, 22}
    assert not needed_pids.of(tasks, OWN) & {502, 503}


def test_files_of_proc_have_its_own_numbers() -> None:
    """What its own /proc shows of a process inside is of that one, whoever has the number here."""
    me = os.getpid()
    found = of_proc.Found(Numbers({1: 1, me: 20, me + 1: 21}))
    found.files += [(me, 3, "/proc/20/status"), (me, 4, "/proc/1/stat"), (me, 5, f"/proc/{me}/maps")]
    found.working += [(me, "/proc/20/fd")]
    (one,) = found.obstacles({me})
    assert (one.code, one.fd, one.what) == ("proc-outside", 4, "/proc/1/stat")
    assert found.ended() == {me}
