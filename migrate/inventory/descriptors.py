"""The descriptors of a tree: those without a path that are no sockets, and what leads out of the tree."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterator

from migrate.inventory import (
    anonymous,
    borrowed,
    holders,
    namespaces,
    of_proc,
    outside,
    pressure,
    proc,
    typed,
)
from migrate.inventory.files import Files
from migrate.inventory.proc import Gone
from migrate.pb.session_pb2 import Obstacle, TakenName
from migrate.processes.own_numbers import Numbers
from tcpcp.criu import tree
from tcpcp.errors import KernelError
from tcpcp.kernel.pidfd import Lender

_PTMX = ("/dev/ptmx", "/dev/pts/ptmx", "/ptmx")
_PTS = "/dev/pts/"


class Descriptors:
    """Collects the descriptors of a tree.

    :param numbers: those that it sees itself; None: ours.
    :ivar tables: what each descriptor points to, by PID and number.
    :ivar files: those of regular files, memory and named pipes.
    """

    def __init__(self, numbers: Numbers | None = None) -> None:
        self._of_proc = of_proc.Found(numbers or Numbers())
        self.tables: dict[int, dict[int, str]] = {}
        self.files = outside.Opened()
        self._pipes: defaultdict[str, list[tuple[int, int, int]]] = defaultdict(list)
        self._terminals: dict[str, tuple[int, int]] = {}
        self._hung_up: dict[str, tuple[int, int]] = {}
        self._regular: list[tuple[int, int]] = []
        self._folders: list[tuple[int, int, str]] = []
        self._namespaces: list[tuple[int, int, str]] = []
        self._obstacles: list[Obstacle] = []
        self.anonymous = anonymous.Anonymous()

    def add_process(self, pid: int, files: Files) -> None:
        """Read the descriptors of *pid*, and hand those with a path to *files*.

        :raises Gone: the process has ended.
        :raises PermissionDenied: the process is not ours to look into.
        """
        try:
            self.tables[pid] = tree.descriptors(pid)
        except KernelError:
            raise Gone(f"process {pid}") from None
        mounts = proc.mount_ids(pid)
        self._of_proc.working.append((pid, proc.link(pid, "cwd")))
        for fd, target in self.tables[pid].items():
            if target.startswith("socket:["):
                continue  # there may be thousands
            try:
                self._add(pid, fd, target, mounts, files)
            except Gone:
                continue  # closed since

    def _add(self, pid: int, fd: int, target: str, mounts: set[int], files: Files) -> None:
        if target.startswith("pipe:["):
            flags = proc.fdinfo(pid, fd).flags
            self._pipes[target].append((pid, fd, flags & os.O_ACCMODE))
            if flags & os.O_DIRECT:
                self._obstacles.append(Obstacle(code="pipe-packets", pid=pid, fd=fd, what=target))
        elif target.startswith(anonymous.PREFIX):
            self.anonymous.add(pid, fd, target, self.tables[pid], files)
        elif target in _PTMX:
            info = proc.fdinfo(pid, fd)
            files.locks[pid, fd] = info.locks
            self._terminals.setdefault(f"{_PTS}{info.more.get('tty-index', '')}", (pid, fd))
        elif target == tree.TOO_LONG:
            self._obstacles.append(Obstacle(code="path-length", pid=pid, fd=fd, what=f"descriptor {fd}"))
        elif target.startswith("/"):
            status = _status(pid, fd)
            self.files.add(holders.Held(pid, fd, target), status)
            if stat.S_ISREG(status.st_mode):
                self._regular.append((pid, fd))
            if stat.S_ISDIR(status.st_mode):
                self._folders.append((pid, fd, target))
            if of_proc.about(target) is not None:
                self._of_proc.files.append((pid, fd, target))
            if pressure.is_one(target, status) and pressure.may_wake(proc.fdinfo(pid, fd).flags):
                self._obstacles.append(Obstacle(code="pressure", pid=pid, fd=fd, what=target))
            files.add_descriptor(pid, fd, target, mounts)
        elif namespaces.is_one(target):
            self._namespaces.append((pid, fd, target))
        else:
            self._obstacles.append(Obstacle(code="anonymous", pid=pid, fd=fd, what=target))

    def terminals(self) -> Iterator[TakenName]:
        """Yield the pseudo terminals whose master is in the tree, or nowhere any more.

        In the order in which CRIU makes them again, the latter after :meth:`inside_terminals`.
        """
        for name, (pid, fd) in (*self._terminals.items(), *self._hung_up.items()):
            if (number := name.removeprefix(_PTS)).isdecimal():
                yield TakenName(kind=TakenName.TERMINAL, name=name, port=int(number), pid=pid, fd=fd)

    def inside_terminals(self, obstacles: list[Obstacle]) -> Iterator[Obstacle]:
        """Yield *obstacles* without the terminals that move: their other side is in the tree, or nowhere."""
        with Lender() as lender:
            for one in obstacles:
                if one.code != "terminal" or not self._moves(lender, one):
                    yield one

    def _moves(self, lender: Lender, terminal: Obstacle) -> bool:
        name = terminal.what
        if name in self._terminals:
            return True
        hung_up = name.startswith(_PTS) and borrowed.has_ended(lender, terminal.pid, terminal.fd)
        if hung_up:
            self._hung_up[name] = terminal.pid, terminal.fd
        return hung_up

    def terminals_by_name(self) -> dict[str, holders.Held]:
        """The masters of pseudo terminals, by what /proc shows of their other sides."""
        return {
            name: holders.Held(pid, fd, self.tables[pid][fd]) for name, (pid, fd) in self._terminals.items()
        }

    def is_whole(self, name: str) -> bool:
        """Whether both ends of the pipe *name*, as /proc shows it, are in the tree."""
        modes = {mode for _, _, mode in self._pipes[name]}
        return len(modes) > 1 or os.O_RDWR in modes

    def holds(self, target: str) -> bool:
        """Whether any descriptor is *target*, as /proc shows it."""
        return any(target in table.values() for table in self.tables.values())

    def ended(self) -> set[int]:
        """Processes that have ended, of which a file below /proc is open: CRIU needs their numbers for it."""
        return self._of_proc.ended()

    def hints(self) -> Iterator[Obstacle]:
        """Yield regular files with a hint for writing: no more than a note, so not in the freeze."""
        with Lender() as lender:
            for pid, fd in self._regular:
                if borrowed.has_hint(lender, pid, fd):
                    yield Obstacle(code="write-hint", pid=pid, fd=fd)

    def obstacles(self, inside: set[int]) -> Iterator[Obstacle]:
        """Yield what cannot be dumped, or leads out of the tree with the PIDs *inside*."""
        yield from self._obstacles
        yield from self._of_proc.obstacles(inside)
        yield from namespaces.opened(self._namespaces, inside)
        with Lender() as lender:
            yield from self._of_folders(lender)
            yield from self.anonymous.obstacles(lender, inside)
            yield from typed.obstacles(lender, self._terminals, self.tables)
            for name, ends in self._pipes.items():
                if not self.is_whole(name) and not borrowed.is_hung_up(lender, *ends[0][:2]):
                    pid, fd, mode = ends[0]
                    code = "pipe-written" if mode == os.O_WRONLY else "pipe-read"
                    yield Obstacle(code=code, pid=pid, fd=fd, what=name)

    def _of_folders(self, lender: Lender) -> Iterator[Obstacle]:
        for pid, fd, path in self._folders:
            if borrowed.has_owner(lender, pid, fd):
                yield Obstacle(code="dnotify", pid=pid, fd=fd, what=path)


def _status(pid: int, fd: int) -> os.stat_result:
    with proc.looking(pid):
        return os.stat(f"/proc/{pid}/fd/{fd}")  # noqa: PTH116
