"""Who outside of a tree holds what it holds: one question for its pipes, sockets, files, memory and all the rest.

Nothing is looked for by its kind. What /proc shows tells pipes, sockets and terminals apart; device and inode
tell files and memory, also memory without a descriptor (MAP_SHARED); of the rest kcmp(2) says who has the same one.
What waits in a socket to be taken (SCM_RIGHTS) shows nowhere, nor does what only the kernel has, nor a process of a
PID namespace that is not ours or below ours.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from migrate.inventory import holders, one_opening, paths, proc
from migrate.inventory.holders import Held, Key

_NAMED = ("pipe:[", "socket:[")
#: Of each of these there are many with one name.
_ALIKE = frozenset(
    {
        *("anon_inode:[eventfd]", "anon_inode:[eventpoll]", "anon_inode:[timerfd]", "anon_inode:inotify"),
        *("anon_inode:[fanotify]", "/dev/ptmx", "/dev/pts/ptmx", "/ptmx"),
    }
)
#: Below these is nothing that two can share, but for memory with a name.
_NOTHING = ("/proc/", "/sys/", "/dev/")
_SHM = "/dev/shm/"
#: Memory, of which nobody has a name.
NAMELESS = ("/memfd:", "/dev/zero (deleted)", "/anon_hugepage")
#: A program that was just started holds for a moment what its parent has (fork(2), until exec(2) or its end).
MOMENT_S = 0.2
#: In the freeze there is less patience.
SHORT_MOMENT_S = 0.05


class Hit(NamedTuple):
    """Something that a process outside of the tree holds.

    :ivar ours: the tree's first descriptor of it; of memory without one, the mapping, as :func:`mapped` has it.
    :ivar theirs: the other process's, likewise.
    :ivar key: of a file or memory.
    """

    ours: Held
    theirs: Held
    key: Key | None = None


def mapped(pid: int, mapping: proc.Mapping) -> Held:
    """A mapping instead of a descriptor: its target is its name in /proc/PID/map_files, with its mode behind."""
    return Held(pid, -1, f"{mapping.range} {mapping.mode}")


def place(one: Held) -> str:
    """Where /proc leads to it."""
    if one.fd < 0:
        return f"/proc/{one.pid}/map_files/{one.target.split()[0]}"
    return f"/proc/{one.pid}/fd/{one.fd}"


class Opened:
    """The tree's descriptors of what device and inode tell: regular files, memory (memfd) and named pipes.

    :ivar by_key: all of them, by device and inode; *fifos*: those of named pipes.
    """

    def __init__(self) -> None:
        self.by_key: defaultdict[Key, list[Held]] = defaultdict(list)
        self.fifos: defaultdict[Key, list[Held]] = defaultdict(list)

    def named_pipes(self) -> Opened:
        """Only those."""
        found = Opened()
        found.by_key = found.fifos = self.fifos
        return found

    def add(self, one: Held, status: os.stat_result) -> None:
        """Add a descriptor, if it is of these kinds."""
        key = status.st_dev, status.st_ino
        if stat.S_ISFIFO(status.st_mode):
            self.fifos[key].append(one)
        if key in self.fifos or stat.S_ISREG(status.st_mode):
            self.by_key[key].append(one)


class Things:
    """What the tree holds, by what others could hold it by.

    :param tables: what each descriptor points to, by PID and number.
    :param files: its descriptors of files, memory and named pipes.
    :param shared: its mappings that are shared (MAP_SHARED), with their PIDs.
    :param others: what else others may not have, by what /proc shows: terminals of which it has the master.
    :ivar mapped: files and memory that it has mapped so that others see what it writes, or it what others do.
    """

    def __init__(
        self,
        tables: Mapping[int, Mapping[int, str]],
        files: Opened,
        shared: Iterable[tuple[int, proc.Mapping]],
        others: Mapping[str, Held],
    ) -> None:
        self.files = files.by_key
        self._named: dict[str, Held] = dict(others)
        self._alike: defaultdict[str, list[Held]] = defaultdict(list)
        for pid, table in tables.items():
            for fd, target in table.items():
                if target.startswith(_NAMED):
                    self._named.setdefault(target, Held(pid, fd, target))
                elif target in _ALIKE:
                    self._alike[target].append(Held(pid, fd, target))
        self.mapped = _of_mappings(shared)
        self._paths = {one.target for several in self.files.values() for one in several}
        self._inodes = {inode for _, inode in (*self.files, *self.mapped)}
        self._may_be_mapped = bool(self._inodes - {inode for _, inode in files.fifos})

    def hits(self, besides: Collection[int]) -> Iterator[Hit]:
        """Yield what is held by processes other than *besides* at this moment."""
        alike: defaultdict[str, list[Held]] = defaultdict(list)
        for one in holders.everywhere(besides):
            if one.target in self._named:
                if _is_the_same(one):
                    yield Hit(self._named[one.target], one)
            elif one.target in self._alike:
                alike[one.target].append(one)
            elif (key := self._file(one)) is not None:
                yield Hit(self.first(key), one, key)
        for target, theirs in alike.items():
            yield from (Hit(*pair) for pair in one_opening.pairs(self._alike[target], theirs))
        for pid in proc.pids() if self._may_be_mapped else ():
            if pid not in besides:
                yield from self._mappings(pid)

    def first(self, key: Key) -> Held:
        """The first that the tree has of a file."""
        return self.files[key][0] if key in self.files else self.mapped[key]

    def _file(self, one: Held) -> Key | None:
        """Which of the tree's files it is. Only of those that may be one the file system is asked."""
        with contextlib.suppress(OSError, proc.Gone):  # closed since
            if one.target in self._paths or (
                _may_be_shared(one.target) and proc.inode(one.pid, one.fd) in self._inodes
            ):
                return self._known(holders.key_of(place(one)))
        return None

    def _mappings(self, pid: int) -> Iterator[Hit]:
        with proc.passing_over():
            for mapping in proc.shared_mappings(pid):
                if mapping.inode in self._inodes:
                    one = mapped(pid, mapping)
                    with contextlib.suppress(OSError):  # unmapped since
                        if (key := self._known(holders.key_of(place(one)))) is not None:
                            yield Hit(self.first(key), one, key)

    def _known(self, key: Key) -> Key | None:
        return key if key in self.files or key in self.mapped else None


def staying(found: Iterable[Hit], inside: Collection[int], moment_s: float) -> list[Hit]:
    """Leave out of *found* what is only held for a moment, and by the tree's new children or by ourselves.

    :param inside: PIDs of the tree.
    :param moment_s: to wait, if there is anything at all.
    """
    found, known = list(found), {*inside, os.getpid()}
    ours = {pid for pid in {one.theirs.pid for one in found} if proc.descends(pid, known)}
    hits = [one for one in found if one.theirs.pid not in ours]
    if hits:
        time.sleep(moment_s)
    return [one for one in hits if _is_there(one.ours) and _is_there(one.theirs)]


def _of_mappings(shared: Iterable[tuple[int, proc.Mapping]]) -> dict[Key, Held]:
    """Those that matter, each once, writable if one is: tables that everybody only reads are no memory."""
    once = {
        (one.path, one.inode): (pid, one)
        for pid, one in sorted(shared, key=lambda one: "w" in one[1].mode)
        if _is_writable_or_memory(one) or paths.ends_as_if_deleted(one.path)
    }
    found: dict[Key, Held] = {}
    for pid, mapping in once.values():
        with contextlib.suppress(OSError):  # unmapped since
            one = mapped(pid, mapping)
            if _is_writable_or_memory(mapping) or is_deleted(one, mapping.path):
                found[holders.key_of(place(one))] = one
    return found


def _is_writable_or_memory(one: proc.Mapping) -> bool:
    return "w" in one.mode or one.path.startswith((*NAMELESS, _SHM))


def is_deleted(one: Held, path: str) -> bool:
    """Whether it is a file without a name, of which /proc shows *path*; not if it was closed since."""
    with contextlib.suppress(OSError):
        return paths.is_deleted(path, os.stat(place(one)))  # noqa: PTH116
    return False


def _may_be_shared(target: str) -> bool:
    return target.startswith("/") and (target.startswith(_SHM) or not target.startswith(_NOTHING))


def _is_the_same(one: Held) -> bool:
    """Names of terminals are those of one mount of devpts."""
    with contextlib.suppress(OSError):
        return one.target.startswith(_NAMED) or holders.key_of(place(one)) == holders.key_of(one.target)
    return False


def _is_there(one: Held) -> bool:
    with contextlib.suppress(OSError):
        return one.fd < 0 or os.readlink(place(one)) == one.target  # noqa: PTH115
    return False
