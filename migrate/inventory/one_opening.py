"""Which descriptors are one open file description, as after dup(2) and fork(2): asked by kcmp(2).

Nothing in /proc tells two eventfds, epolls or timerfds apart, and two descriptors of one file may have a position
in common or not. The kernel orders what it compares, so few questions are enough. Source: man kcmp(2), KCMP_FILE;
criu/kcmp-ids.c does the same with a tree.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Sequence

from migrate.inventory.apart import compare
from migrate.inventory.holders import Held
from migrate.inventory.proc import Gone

#: enum kcmp_type of include/uapi/linux/kcmp.h.
_FILE = 0
#: What kcmp(2) says: the same, before, behind.
_ORDER = (0, -1, 1)
#: A program that runs may close a descriptor while they are put in order; then again, without that one.
_ATTEMPTS = 3


def pairs(ours: Iterable[Held], theirs: Iterable[Held]) -> Iterator[tuple[Held, Held]]:
    """Yield those of *theirs* that are the same as one of *ours*, with that; nothing of what is closed meanwhile.

    :raises OSError: the kernel has no kcmp(2), or does not let us.
    """
    theirs = list(theirs)
    ordered = _ordered(ours) if theirs else []
    for one in theirs:
        with contextlib.suppress(Gone):
            if (found := _search(ordered, one)) is not None:
                yield found, one


def _ordered(several: Iterable[Held]) -> Sequence[Held]:
    for _ in range(_ATTEMPTS):
        several = [one for one in several if _is_open(one)]
        with contextlib.suppress(Gone):
            return sorted(several, key=functools.cmp_to_key(_order))
    return ()


def _search(ordered: Sequence[Held], wanted: Held) -> Held | None:
    low, high = 0, len(ordered)
    while low < high:
        middle = (low + high) // 2
        order = _order(wanted, ordered[middle])
        if not order:
            return ordered[middle]
        low, high = (low, middle) if order < 0 else (middle + 1, high)
    return None


def _order(one: Held, other: Held) -> int:
    return _ORDER[compare(one.pid, other.pid, _FILE, (one.fd, other.fd))]


def _is_open(one: Held) -> bool:
    try:
        return not _order(one, one)
    except Gone:
        return False
