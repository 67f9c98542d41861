"""The files of a tree, looked at again: what it has opened since, and what it may write. Fast: it is frozen."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from migrate.inventory.descriptors import Descriptors
from migrate.inventory.files import Files
from migrate.inventory.proc import Gone
from migrate.pb.session_pb2 import File


def again(pids: Iterable[int], known: Collection[str]) -> tuple[list[File], dict[str, str]]:
    """Open files of the tasks *pids*, and mapped ones but those that are *known* and only read.

    :return: also paths that are gone, of files that have another name: that one.
    """
    files, tables = Files(known), Descriptors()
    for pid in pids:
        try:
            tables.add_process(pid, files)
            files.add_process(pid)
        except Gone:
            continue
    return files.found, files.renamed
