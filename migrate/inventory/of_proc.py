"""Open files below /proc that tell of one process: CRIU opens them again by the same numbers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from migrate.inventory import proc
from migrate.pb.session_pb2 import Obstacle

_PATH = re.compile(r"/proc/(\d+)(?:/task/(\d+))?(?:[/ ].*)?")


class About(NamedTuple):
    """What a file is about.

    :ivar thread: of the process, by its number; 0: all of them.
    """

    pid: int
    thread: int


def about(path: str) -> About | None:
    """Which process the file at *path* tells of; None: of none."""
    match = _PATH.fullmatch(path)
    return About(int(match[1]), int(match[2] or 0)) if match else None


def directories(working: Iterable[tuple[int, str]], inside: Collection[int]) -> Iterator[Obstacle]:
    """Yield those of *working* (process, its working directory) that CRIU cannot have it work in.

    It cannot be the directory of a process itself (criu/files-reg.c spoils the path), but one below that can.

    :param inside: PIDs of the tree.
    """
    for pid, path in working:
        found = about(path)
        if found is None:
            continue
        if found.pid not in inside or found.thread not in (0, found.pid) or path == f"/proc/{found.pid}":
            yield Obstacle(code="proc-directory", pid=pid, what=path)


def obstacles(files: Iterable[tuple[int, int, str]], inside: Collection[int]) -> Iterator[Obstacle]:
    """Yield those of *files* (process, descriptor, path) that another host lacks, or has of another process.

    CRIU opens files before it makes threads. Of a process that has ended it makes a short-lived one to open them.

    :param inside: PIDs of the tree.
    """
    for pid, fd, path in files:
        found = about(path)
        if found is None:
            continue
        if found.thread not in (0, found.pid) or _leader(found.pid) in {*inside} - {found.pid}:
            yield Obstacle(code="proc-thread", pid=pid, fd=fd, what=path)
        elif found.pid not in inside and _leader(found.pid):
            yield Obstacle(code="proc-outside", pid=pid, fd=fd, what=path)


def ended(paths: Iterable[str]) -> set[int]:
    """The processes that *paths* tell of, and that are no more."""
    return {found.pid for path in paths if (found := about(path)) is not None and not _leader(found.pid)}


def _leader(number: int) -> int:
    """The process that the task *number* belongs to; 0: there is no such task."""
    try:
        return int(proc.status(number).get("Tgid", "0"))
    except (proc.Gone, ValueError):
        return 0
