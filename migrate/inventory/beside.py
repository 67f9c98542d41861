"""What the destination is asked about beside the files that the process has open, for the options that copy."""

from __future__ import annotations

import os
from collections.abc import Iterable

from migrate.inventory import neighbours, storage
from migrate.inventory.files import describe
from migrate.pb.session_pb2 import File, ProcessInventory


def add(process: ProcessInventory, trees: Iterable[str], *, copying: bool) -> None:
    """Add the directories *trees*, and with *copying* the neighbours of files that the process writes."""
    trees = tuple(trees)
    for path in trees:
        process.files.append(_tree(path))
    if copying:
        process.files.extend(list(neighbours.of(process.files, trees)))


def _tree(path: str) -> File:
    try:
        found = describe(path, File.COPIED_TREE, os.stat(path))  # noqa: PTH116
        found.storage = storage.name(path)
    except OSError:
        return File(path=path, use=File.COPIED_TREE)
    if (real := os.path.realpath(path)) != path:
        found.real_path = real
    return found
