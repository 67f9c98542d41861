"""Open files below /proc that tell of one process: CRIU opens them again by the same numbers."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

from migrate.inventory import proc
from migrate.pb.session_pb2 import Obstacle
from migrate.processes.own_numbers import Numbers

#: Their content is the same for whoever opens them, and so is a position in it.
_BY_POSITION = frozenset({"mem", "pagemap", "cmdline", "environ", "auxv"})
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


class Found:
    """Those that a tree has open, and its working directories.

    :param numbers: of the tree as it sees itself, which its own /proc has.
    :ivar files: process, descriptor and path of each. :ivar working: process and path.
    """

    def __init__(self, numbers: Numbers) -> None:
        self._here = numbers.here
        self.files: list[tuple[int, int, str]] = []
        self.working: list[tuple[int, str]] = []

    def obstacles(self, inside: Collection[int]) -> Iterator[Obstacle]:
        """Yield those that another host lacks, or has of another process.

        :param inside: PIDs of the tree.
        """
        yield from obstacles(self.files, inside, self._here)
        yield from directories(self.working, inside, self._here)

    def ended(self) -> set[int]:
        """The processes that they tell of, as the tree numbers them, and that are no more."""
        return ended((path for _, _, path in self.files), self._here)


def _same(number: int) -> int:
    return number


def directories(
    working: Iterable[tuple[int, str]], inside: Collection[int], here: Callable[[int], int] = _same
) -> Iterator[Obstacle]:
    """Yield those of *working* (process, its working directory) that CRIU cannot have it work in.

    It cannot be the directory of a process itself (criu/files-reg.c spoils the path), but one below that can.

    :param inside: PIDs of the tree.
    :param here: number in the tree's own /proc -> number of this host, 0 for none.
    """
    for pid, path in working:
        found = about(path)
        if found is None:
            continue
        if (
            here(found.pid) not in inside
            or found.thread not in (0, found.pid)
            or path == f"/proc/{found.pid}"
        ):
            yield Obstacle(code="proc-directory", pid=pid, what=path)


def obstacles(
    files: Iterable[tuple[int, int, str]], inside: Collection[int], here: Callable[[int], int] = _same
) -> Iterator[Obstacle]:
    """Yield those of *files* (process, descriptor, path) that another host lacks, or has of another process.

    CRIU opens files before it makes threads. Of a process that has ended it makes a short-lived one to open them.

    :param inside, here: as of :func:`directories`.
    """
    for pid, fd, path in files:
        found = about(path)
        if found is None:
            continue
        number = here(found.pid)
        if found.thread not in (0, found.pid) or _leader(number) in {*inside} - {number}:
            yield Obstacle(code="proc-thread", pid=pid, fd=fd, what=path)
        elif number not in inside and _leader(number):
            yield Obstacle(code="proc-outside", pid=pid, fd=fd, what=path)
        elif _is_read_in_part(pid, fd, path):
            yield Obstacle(code="proc-read", pid=pid, fd=fd, what=path)


def _is_read_in_part(pid: int, fd: int, path: str) -> bool:
    """Whether the program has begun to read it. CRIU goes to the same position while the process is CRIU's own, and
    the kernel keeps what it has to say from there on (fs/seq_file.c seq_lseek(), traverse())."""
    if path.rpartition("/")[2] in _BY_POSITION:
        return False
    try:
        regular = stat.S_ISREG(os.stat(f"/proc/{pid}/fd/{fd}").st_mode)  # noqa: PTH116
        return regular and proc.fdinfo(pid, fd).more.get("pos", "0") != "0"
    except (OSError, proc.Gone):
        return False


def ended(paths: Iterable[str], here: Callable[[int], int] = _same) -> set[int]:
    """The processes that *paths* tell of, as these number them, and that are no more.

    :param here: as of :func:`directories`.
    """
    found = {one.pid for path in paths if (one := about(path)) is not None}
    return {pid for pid in found if not _leader(here(pid))}


def _leader(number: int) -> int:
    """The process that the task *number* belongs to; 0: there is no such task."""
    if not number:
        return 0
    try:
        return int(proc.status(number).get("Tgid", "0"))
    except (proc.Gone, ValueError):
        return 0
