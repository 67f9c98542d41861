"""What one look over a running tree says and the next does not, since the program went on between its parts. Pure.

Processes are listed, then the descriptors of each are read, then it is asked what they lead to. A child that was
made after the list, as by every program that starts others, has the other end of a pipe that seems to lead out of
the tree; a file was closed and its number is another one's. So of these kinds is told what two looks have found.
"""

from __future__ import annotations

from collections.abc import Iterable

from migrate.pb.session_pb2 import Obstacle

#: Obstacles for which parts of a look are put together that may be of two moments.
_PUT_TOGETHER = frozenset(
    {
        *("pipe-read", "pipe-written", "pipe-outside", "unix-outside", "socket-outside", "listener-outside"),
        *("eventfd-outside", "fifo-outside", "memory-outside", "terminal-outside"),
        *("hidden-file", "renamed-file"),
        *("epoll-closed", "epoll-disarmed"),  # what it watches is read, and then which descriptors there are
        "proc-read",  # opened, read and closed in a moment
        "vdso",  # a program that is just being executed
    }
)


def is_questioned(obstacles: Iterable[Obstacle]) -> bool:
    """Whether one of *obstacles* is to be looked for again before it is told."""
    return any(one.code in _PUT_TOGETHER for one in obstacles)


def settled(before: Iterable[Obstacle], after: Iterable[Obstacle]) -> list[Obstacle]:
    """Those of *after* that a look before has found as well, in the same place, or that need no other look."""
    known = {_place(one) for one in before}
    return [one for one in after if one.code not in _PUT_TOGETHER or _place(one) in known]


def _place(one: Obstacle) -> tuple[str, int, int | None, str]:
    return one.code, one.pid, one.fd if one.HasField("fd") else None, one.what
