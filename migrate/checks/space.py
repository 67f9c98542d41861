"""Whether there is room on the destination for what --copy-files and --copy-tree take there. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from migrate.checks.files import copied
from migrate.checks.subject import DESTINATION, Subject
from migrate.errors import Reason
from migrate.pb.session_pb2 import File
from migrate.units import size


def room_for_copies(subject: Subject) -> Iterator[Reason]:
    """What is copied is there twice until the end, where it replaces something."""
    wanted: defaultdict[int, int] = defaultdict(int)
    free: dict[int, tuple[int, str]] = {}
    for here, there in _copied(subject):
        wanted[there.file_system] += here.stored_bytes
        free.setdefault(there.file_system, (there.free_bytes, here.path))
    for number, (free_bytes, path) in free.items():
        if wanted[number] > free_bytes:
            text = (
                f"{size(wanted[number])} are to be copied to where {path} is, and {size(free_bytes)} are free"
            )
            yield Reason(
                "no-file-space", DESTINATION, text, f"Make room there: df {path} shows what is full."
            )


def _copied(subject: Subject) -> Iterator[tuple[File, File]]:
    """Each file and directory that is to be copied, with what the destination has at its path."""
    there = {(one.path, one.use): one for one in subject.destination.files}
    trees = [one for one in subject.process.files if one.use == File.COPIED_TREE]
    for here in (*copied(subject), *trees):
        if (its := there.get((here.path, here.use))) is not None and its.file_system:
            yield here, its
