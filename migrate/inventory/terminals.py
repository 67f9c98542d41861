"""Pseudo terminals by number: which are in use here, by whom, and which CRIU would not reach.

CRIU opens /dev/ptmx, which gives the lowest free number, until it has the one that it needs, at most 32 times
(criu/tty.c __pty_open_ptmx_index()).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from migrate.inventory import holders, proc
from migrate.pb.session_pb2 import TakenName

_PTS = "/dev/pts"
_MOST_OPENED = 32


def taken(wanted: Iterable[TakenName], folder: str = _PTS) -> list[TakenName]:
    """Return those of the terminals *wanted* that are in use here, or (``occupied``) out of reach.

    :param wanted: in the order in which they will be opened.
    """
    wanted = list(wanted)
    if not wanted:
        return []
    try:
        used = {int(name) for name in os.listdir(folder) if name.isdecimal()}  # noqa: PTH208
    except OSError:
        used = set()
    return list(_unreachable(wanted, used))


def _unreachable(wanted: list[TakenName], used: set[int]) -> Iterator[TakenName]:
    held = _holders({one.name for one in wanted if one.port in used})
    opened = set(used)
    for one in wanted:
        lowest = next(number for number in range(len(opened) + 1) if number not in opened)
        if one.port in used or one.port - lowest >= _MOST_OPENED:
            found = TakenName()
            found.CopyFrom(one)
            found.holder, found.occupied = held.get(one.name, ""), one.port not in used
            yield found
        opened.add(one.port)


def _holders(names: set[str]) -> dict[str, str]:
    """Who has the terminals *names* open, either side of them: one program for each."""
    found: dict[str, str] = {}
    for one in holders.everywhere() if names else ():
        with proc.passing_over():  # ended since, or closed since
            target = one.target
            if target.endswith("/ptmx"):
                target = f"{_PTS}/{proc.fdinfo(one.pid, one.fd).more.get('tty-index', '')}"
            if target in names and target not in found:
                found[target] = holders.named(one.pid)
    return found
