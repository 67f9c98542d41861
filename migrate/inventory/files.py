"""The files of a process: open, mapped, executed, working and root directory.

What is reported about a file was read through the process's own descriptor or mapping, not through the path,
which may name another file by now.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection

from migrate.inventory import devices, file_facts, namespaces, no_file, of_proc, own_ipc, paths, proc, vdso
from migrate.inventory.described import allocated_bytes, build_id, deleted, describe, shown
from migrate.pb.session_pb2 import File, Obstacle
from tcpcp.criu.tree import TOO_LONG

#: What O_TMPFILE has beside O_DIRECTORY.
_TMPFILE = os.O_TMPFILE & ~os.O_DIRECTORY

#: What is below these is made anew by the other kernel.
_KERNEL_MADE = ("/proc/", "/sys/")

_DEV_ZERO = os.makedev(1, 5)
#: What is in these files means nothing: they have to be there.
_ONLY_THERE = frozenset({File.WATCHED, File.KERNEL_MADE})


class Files:
    """Collects the files of a tree, each path once for each use.

    :param known: paths of which only may have changed who writes them and how: nothing else is found out.
    :ivar found: in the order in which they were seen.
    :ivar obstacles: what CRIU cannot dump, or not restore on another host.
    :ivar renamed: paths that are gone, of files that have another name: that one.
    :ivar shared: mappings that others may have too (MAP_SHARED), with their PIDs.
    :ivar locks: of each process's descriptors with a path.
    """

    def __init__(self, known: Collection[str] = ()) -> None:
        self._known = known
        self._found: dict[tuple[str, int], File] = {}
        self.obstacles: list[Obstacle] = []
        self.renamed: dict[str, str] = {}
        self.shared: list[tuple[int, proc.Mapping]] = []
        self.locks: dict[tuple[int, int], tuple[str, ...]] = {}
        self._deleted: dict[str, File] = {}

    @property
    def deleted(self) -> list[File]:
        """Files and directories without a name that CRIU makes again at their paths, and deletes."""
        return list(self._deleted.values())

    @property
    def found(self) -> list[File]:
        """Every file, with what the origin knows of it; one that is written in one use is so in all."""
        written = {file.path for file in self._found.values() if file.written}
        for file in self._found.values():
            file.written = file.path in written and file.use not in _ONLY_THERE
        return list(self._found.values())

    def add_process(self, pid: int) -> None:
        """Add executable, directories and mappings of *pid*.

        :raises Gone: the process has ended.
        """
        # CRIU opens it anew by its path, and memory has none.
        if no_file.is_memory(program := proc.link(pid, "exe"), f"/proc/{pid}/exe"):
            self._obstacle("memory-executed", pid, program)
        else:
            self._add_link(pid, "exe", File.EXECUTABLE)
        self._add_link(pid, "cwd", File.WORKING_DIRECTORY)
        if proc.link(pid, "root") != "/":
            self._add_link(pid, "root", File.ROOT_DIRECTORY)
        self.add_mappings(pid)

    def add_mappings(self, pid: int) -> None:
        """Add the mappings of *pid*, but those of files that are known and that it does not write there.

        :raises Gone: the process has ended.
        """
        mappings = proc.maps(pid)
        self.obstacles.extend(vdso.obstacles(pid, mappings))
        for mapping in own_ipc.without_segments(pid, mappings):
            if "s" in mapping.mode:
                self.shared.append((pid, mapping))
            if mapping.path not in self._known or mapping.writes_file:
                self._add_mapping(pid, mapping)

    def add_descriptor(self, pid: int, fd: int, path: str, mounts: set[int]) -> None:
        """Add the file that descriptor *fd* of *pid* refers to, if it is one with a path.

        :param path: what /proc/PID/fd/FD points to; begins with a slash.
        :param mounts: mounts that the process can see.
        :raises Gone: the descriptor was closed.
        """
        with proc.looking(pid):
            path, status = paths.looked_at(path, f"/proc/{pid}/fd/{fd}")
        info = proc.fdinfo(pid, fd)
        self.locks[pid, fd] = info.locks
        if self._no_file(pid, path, f"/proc/{pid}/fd/{fd}", fd) or self._unnameable(pid, path, fd=fd):
            return
        if status.st_dev == namespaces.device():
            self._obstacle("namespace-file", pid, path, fd=fd)
        # Told before what kind of file it is: CRIU refuses any of these.
        elif info.mount_id not in mounts:
            self._obstacle(no_file.foreign(f"/proc/{pid}/fd/{fd}", info.flags), pid, path, fd=fd)
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            self._device(pid, fd, path, status)
        elif stat.S_ISSOCK(status.st_mode):
            return  # a place only
        elif place := self._place(pid, path, status, fd=fd):
            path = place
            file = self._file(path, File.OPEN, status)
            file_facts.opened(file, info)
            self._add_locks(pid, fd, file, info)
            has_facts = (file.regular or file.directory) and file.use != File.KERNEL_MADE
            if has_facts and path not in self._known and not info.leased:
                file_facts.add(file, f"/proc/{pid}/fd/{fd}")

    def add_watched(self, pid: int, fd: int, path: str) -> None:
        """Add what is at *path*, which the descriptor *fd* of *pid* watches.

        :raises Gone: it was removed.
        """
        with proc.looking():
            status = os.stat(path)  # noqa: PTH116
        if not self._unnameable(pid, path, fd=fd):
            self._file(path, File.WATCHED, status)

    def _add_locks(self, pid: int, fd: int, file: File, info: proc.FdInfo) -> None:
        file.locks.extend(lock for lock in info.locks if lock not in file.locks)
        if info.leased:
            self._obstacle("lease", pid, file.path, fd=fd)

    def _add_link(self, pid: int, name: str, use: File.Use) -> None:
        """Add what /proc/PID/*name* leads to, if it is not known."""
        path = proc.link(pid, name)
        if path in self._known:
            return
        # Nor can its file be told, or looked at by a path.
        if path == TOO_LONG:
            self._obstacle("path-length", pid, f"/proc/{pid}/{name}")
            return
        with proc.looking(pid):
            path, status = paths.looked_at(path, f"/proc/{pid}/{name}")
        if not self._unnameable(pid, path) and (place := self._place(pid, path, status)):
            file = self._file(place, use, status)
            file.executed |= use == File.EXECUTABLE
            if use == File.EXECUTABLE and not file.build_id:
                file.build_id = build_id(f"/proc/{pid}/{name}")

    def _add_mapping(self, pid: int, mapping: proc.Mapping) -> None:
        if self._no_file(pid, mapping.path, f"/proc/{pid}/map_files/{mapping.range}"):
            return
        code, what = no_file.mapped(mapping.path)
        if code:
            self._obstacle(code, pid, what)
        elif what.startswith("/"):
            self._add_mapped_file(pid, mapping)

    def _no_file(self, pid: int, path: str, through: str, fd: int | None = None) -> bool:
        """Whether it is memory that *through* leads to, or has no place there; that is an obstacle."""
        if code := no_file.obstacle(path, through):
            self._obstacle(code, pid, paths.seen_through(path, through), fd=fd)
        return bool(code) or no_file.is_memory(path, through)

    def _add_mapped_file(self, pid: int, mapping: proc.Mapping) -> None:
        """Add it once for all its mappings, each of which may be written or executed."""
        known = self._found.get((mapping.path, File.MAPPED))
        if known is None:
            through = f"/proc/{pid}/map_files/{mapping.range}"
            try:
                path, status = paths.looked_at(mapping.path, through)
            except (FileNotFoundError, ProcessLookupError):
                return  # unmapped since; a process that has ended, or is just ending, is noticed by the next reader
            if not stat.S_ISREG(status.st_mode):
                if status.st_rdev != _DEV_ZERO:
                    self._obstacle("mapped-device", pid, path)
                return
            if self._unnameable(pid, path):
                return
            place = self._place(pid, path, status)
            if place is None:
                if gone := self._deleted.get(paths.without_mark(path, status)):
                    gone.executed |= "x" in mapping.mode
                return
            known = self._file(place, File.MAPPED, status)
            if place not in self._known:
                known.build_id = build_id(through)
                file_facts.add(known, through)
        known.executed |= "x" in mapping.mode
        if mapping.writes_file:
            known.written = known.mapped_shared = True

    def _file(self, path: str, use: File.Use, status: os.stat_result) -> File:
        """The file at *path* in that use, which is added unless it was before, or is of one process in /proc."""
        if path.startswith(_KERNEL_MADE):
            use = File.KERNEL_MADE
        key = (path, use)
        if key not in self._found:
            self._found[key] = describe(path, use, status)
            if of_proc.about(path) is not None:  # also of a PID that is the same there
                return self._found.pop(key)
        return self._found[key]

    def _unnameable(self, pid: int, path: str, fd: int | None = None) -> bool:
        """Whether the path is not UTF-8, as are all texts that go to the other host."""
        if path.isascii() or shown(path) == path:
            return False
        self._obstacle("file-name", pid, path, fd=fd)
        return True

    def _place(self, pid: int, path: str, status: os.stat_result, fd: int | None = None) -> str | None:
        """The path that leads to the file; None: none does, which is an obstacle, or CRIU makes it anew."""
        if status.st_nlink > 0 and not paths.is_deleted(path, status):
            if path.startswith(_KERNEL_MADE) or paths.leads_to(path, status):
                return path
            self._obstacle("hidden-file", pid, path, fd=fd)
            return None
        path = paths.without_mark(path, status)
        if path.startswith(_KERNEL_MADE):
            return None  # of a process that has ended
        if status.st_nlink == 0 or stat.S_ISDIR(status.st_mode):
            self._deleted.setdefault(path, deleted(path, status))
        if stat.S_ISDIR(status.st_mode):
            if paths.is_root(pid, status):
                self._obstacle("deleted-directory", pid, path, fd=fd)
        elif status.st_nlink == 0:
            if fd is not None and proc.fdinfo(pid, fd).flags & _TMPFILE:
                self._obstacle("tmpfile", pid, path, fd=fd)
            # As CRIU's criu/files-reg.c dump_ghost_file() counts: what is allocated, not how long it is.
            self._obstacle("deleted-file", pid, path, fd=fd, size_bytes=allocated_bytes(status))
        else:
            other = paths.other_name(path, status)
            # Another file may have had the name, too, and only the names are known when it is opened again.
            if other and self.renamed.setdefault(path, other) == other:
                return other
            self._obstacle("renamed-file", pid, path, fd=fd)
        return None

    def _device(self, pid: int, fd: int, path: str, status: os.stat_result) -> None:
        if devices.is_terminal(status):
            self._obstacle("terminal", pid, paths.without_mark(path, status), fd=fd)
        elif devices.is_everywhere(status):
            self._file(path, File.OPEN, status)
        else:
            self._obstacle("device", pid, path, fd=fd)

    def _obstacle(self, code: str, pid: int, what: str, fd: int | None = None, size_bytes: int = 0) -> None:
        self.obstacles.append(Obstacle(code=code, pid=pid, fd=fd, what=shown(what), size_bytes=size_bytes))
