"""What the destination is asked about beside the files that the process has open, for the options that copy."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from migrate.inventory import attributes, inside, neighbours, paths, storage, walked
from migrate.inventory.described import NOT_OPENED, describe, stored_bytes
from migrate.pb.session_pb2 import File, Obstacle, ProcessInventory, TakenName


def add(process: ProcessInventory, trees: Iterable[str], *, copying: bool) -> list[str]:
    """Add the directories *trees*, and with *copying* the neighbours of files that the process writes, and what is
    in directories that it uses.

    :return: notes: what is in the directories and does not go along.
    """
    trees, notes = tuple(trees), []
    # CRIU makes its own sockets again.
    own = {one.name for one in process.names if one.kind == TakenName.PATH}
    for path in trees:
        process.files.append(_tree(path))
        tree = process.files[-1]
        left: list[str] = []
        for name, status in _below(path):
            tree.stored_files += 1
            if stat.S_ISREG(status.st_mode):
                tree.stored_bytes += stored_bytes(status)
            if any(kind(status.st_mode) for kind in (stat.S_ISREG, stat.S_ISDIR)):
                its = attributes.of(name)
                tree.attributes.extend(one for one in its if one not in tree.attributes)
            if code := _obstacle(name, status):
                shown = os.fsencode(name).decode(errors="replace")
                process.obstacles.append(Obstacle(code=code, pid=process.root_pid, what=shown))
            elif not _goes_along(status) and name not in own:
                left.append(name)
        notes += _left(path, left)
        process.obstacles.extend(_used(process, left))
    if copying:
        inside.add(process.files)
        process.files.extend(list(neighbours.of(process.files, trees)))
    return notes


def _tree(path: str) -> File:
    try:
        found = describe(path, File.COPIED_TREE, os.stat(path))  # noqa: PTH116
        found.storage = storage.name(path)
    except OSError:
        return File(path=path, use=File.COPIED_TREE)
    if (real := os.path.realpath(path)) != path:
        found.real_path = real
    return found


def _below(top: str) -> Iterator[tuple[str, os.stat_result]]:
    """All that is in a directory; of what is mounted in it only where."""
    for directory, below, names, fd in walked.walk(top):
        device = os.fstat(fd).st_dev
        for name in (*list(below), *names):
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            # On overlayfs the device of a directory is that of the mount, and that of a file need not be.
            if stat.S_ISDIR(status.st_mode) and status.st_dev != device:
                below.remove(name)
                status = os.stat_result((0, *status[1:]))
            yield f"{directory}/{name}", status


def _obstacle(path: str, status: os.stat_result) -> str:
    """The kind of obstacle that a file of a tree is, "" for none."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "tree-name"
    if paths.is_too_long(path):
        return "tree-path"
    set_id = stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_ISUID | stat.S_ISGID)
    return "tree-set-id" if set_id else ""


def _goes_along(status: os.stat_result) -> bool:
    return any(kind(status.st_mode) for kind in (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK))


def _used(process: ProcessInventory, left: list[str]) -> Iterator[Obstacle]:
    """What is left out, or is below what is mounted there, and the process has open: CRIU would miss it."""
    below = tuple(f"{path}/" for path in left)
    for path in sorted({one.path for one in process.files if one.use not in NOT_OPENED}):
        if path in left or path.startswith(below):
            yield Obstacle(code="tree-left-out", pid=process.root_pid, what=path)


def _left(top: str, paths: list[str]) -> list[str]:
    if not paths:
        return []
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    told = ", ".join(path.removeprefix(f"{top}/") for path in paths[:3])
    return [
        f"--copy-tree {top} leaves out {told}{more}: sockets, named pipes, devices and what is mounted there"
        " are not copied"
    ]
