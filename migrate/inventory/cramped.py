"""Processes that are at limits of their own, so that CRIU, which works inside of them, cannot."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterable, Iterator

from migrate.inventory import locked, proc
from migrate.pb.session_pb2 import Obstacle
from migrate.processes import leeway

_CODES = {
    resource.RLIMIT_NOFILE: "cramped-descriptors",
    resource.RLIMIT_AS: "cramped-addresses",
    resource.RLIMIT_MEMLOCK: "cramped-locked",
}


def obstacles(pids: Iterable[int]) -> Iterator[Obstacle]:
    """Yield the limits of *pids* that are too narrow, and that cannot be raised for the time of the dump.

    Of another user's process, whose limits this root may not see, the inventory has told already.
    """
    for pid in pids:
        yield from (obstacle(one) for one in leeway.narrow(pid) if not one.can_be_raised and _matters(one))


def _matters(one: leeway.Narrow) -> bool:
    """Only who locks all that it has can be told to lock what CRIU maps in it."""
    with contextlib.suppress(proc.Gone):
        return one.kind != resource.RLIMIT_MEMLOCK or locked.all_of(one.pid)
    return False


def obstacle(one: leeway.Narrow) -> Obstacle:
    """That *one* is too narrow."""
    return Obstacle(code=_CODES[one.kind], pid=one.pid, what=str(one.needed))
