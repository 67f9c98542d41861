"""Processes that are at limits of their own, so that CRIU, which works inside of them, cannot."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Iterator

from migrate.pb.session_pb2 import Obstacle
from migrate.processes import leeway

_CODES = {resource.RLIMIT_NOFILE: "cramped-descriptors", resource.RLIMIT_AS: "cramped-addresses"}


def obstacles(pids: Iterable[int]) -> Iterator[Obstacle]:
    """Yield the limits of *pids* that are too narrow, and that cannot be raised for the time of the dump.

    Of another user's process, whose limits this root may not see, the inventory has told already.
    """
    for pid in pids:
        yield from (obstacle(one) for one in leeway.narrow(pid) if not one.can_be_raised)


def obstacle(one: leeway.Narrow) -> Obstacle:
    """That *one* is too narrow."""
    return Obstacle(code=_CODES[one.kind], pid=one.pid, what=str(one.needed))
