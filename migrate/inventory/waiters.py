"""Who waits for a lock that the tree holds: a process that stays gets it when the tree's copy here is ended.

Source: man proc(5), /proc/locks: who waits for a lock (``->``) stands below it, with the same number.
For locks of an open file (F_OFD_SETLKW) it does not say who waits, which may be the tree itself: nothing is noted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
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


def obstacles(tables: Mapping[int, Mapping[int, str]], inside: Collection[int]) -> Iterator[Obstacle]:
    """Yield a note for each process but those *inside* that waits for a lock of theirs.

    :param tables: what each descriptor of the tree points to, by PID and number.
    """
    waiting = [one for one in parse(Path("/proc/locks").read_text()) if one[1] not in inside and one[1] > 0]
    held = _held(tables) if waiting else {}
    for lock, waiter in waiting:
        if lock in held:
            pid, fd = held[lock]
            with contextlib.suppress(proc.Gone):
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


def _held(tables: Mapping[int, Mapping[int, str]]) -> dict[Lock, tuple[int, int]]:
    """The locks of the tree, each with a descriptor that has it."""
    found: dict[Lock, tuple[int, int]] = {}
    for pid, table in tables.items():
        for fd in (fd for fd, target in table.items() if target.startswith("/")):
            with contextlib.suppress(proc.Gone):
                for line in proc.text(pid, f"fdinfo/{fd}").split("\n"):
                    if line.startswith("lock:") and len(fields := line.split()) == 9:
                        found.setdefault(_lock(fields[2:]), (pid, fd))
    return found
