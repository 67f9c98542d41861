"""Who waits for a lock that the tree holds: a process that stays gets it when the tree's copy here is ended.

Source: man proc(5), /proc/locks: who waits for a lock (``->``) stands below it, with the same number.
For locks of an open file (F_OFD_SETLKW) it does not say who waits, which may be the tree itself: nothing is noted.

To read it waits for all processors, some 10 ms (fs/locks.c locks_start(), percpu_down_write()): it is read only for
a tree that has a lock, and in the freeze while something else is waited for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from migrate.inventory import holders, proc
from migrate.pb.session_pb2 import Obstacle


class Lock(NamedTuple):
    """Kind (FLOCK, POSIX, OFDLCK), mode, file as device and inode, first and last byte."""

    kind: str
    mode: str
    file: str
    first: str
    last: str


def obstacles(locked: Mapping[tuple[int, int], Sequence[str]], inside: Collection[int]) -> Iterator[Obstacle]:
    """Yield a note for each process but those *inside* that waits for a lock of theirs.

    :param locked: processes of the tree and their descriptors, with the locks that each has.
    """
    locks = _of(where for where, has in locked.items() if has)
    for lock, waiter in parse(Path("/proc/locks").read_text()) if locks else ():
        if lock in locks and waiter not in inside and waiter > 0:
            pid, fd = locks[lock]
            with proc.passing_over():
                yield Obstacle(code="lock-awaited", pid=pid, fd=fd, what=holders.named(waiter))


def parse(content: str) -> Iterator[tuple[Lock, int]]:
    """Yield each lock of /proc/locks that somebody waits for, with the PID of who does."""
    locks: dict[str, Lock] = {}
    for line in content.split("\n"):
        number, *fields = line.split()[:9] or [""]
        if fields[:1] == ["->"] and len(fields) > 4 and number in locks:
            yield locks[number], int(fields[4])
        elif len(fields) == 7:
            locks[number] = _lock(fields)


def _lock(fields: list[str]) -> Lock:
    kind, _, mode, _, file, first, last = fields
    return Lock(kind, mode, file, first, last)


def _of(held: Iterable[tuple[int, int]]) -> dict[Lock, tuple[int, int]]:
    """The locks, each with a descriptor that has it."""
    found: dict[Lock, tuple[int, int]] = {}
    for pid, fd in held:
        with contextlib.suppress(proc.Gone):
            for line in proc.text(pid, f"fdinfo/{fd}").split("\n"):
                if line.startswith("lock:") and len(fields := line.split()) == 9:
                    found.setdefault(_lock(fields[2:]), (pid, fd))
    return found
