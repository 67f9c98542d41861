"""Whether there is room on the destination for what is copied there, and for deleted files that go along. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from migrate.checks.files import asked_for_a_place, copied
from migrate.checks.subject import DESTINATION, Subject
from migrate.errors import Reason
from migrate.pb.session_pb2 import File
from migrate.units import size


def room_for_copies(subject: Subject) -> Iterator[Reason]:
    """What is copied is there twice until the end, where it replaces something."""
    wanted: defaultdict[int, list[File]] = defaultdict(list)
    places: dict[int, File] = {}
    for here, there in _copied(subject):
        wanted[there.file_system].append(here)
        places.setdefault(there.file_system, there)
    for number, there in places.items():
        yield from _too_little(wanted[number], there)


def _too_little(wanted: list[File], there: File) -> Iterator[Reason]:
    stored, files = sum(one.stored_bytes for one in wanted), sum(one.stored_files or 1 for one in wanted)
    path = there.path
    if stored > there.free_bytes:
        text = f"{size(stored)} are to be copied to where {path} is, and {size(there.free_bytes)} are free"
        yield Reason("no-file-space", DESTINATION, text, f"Make room there: df {path} shows what is full.")
    if there.HasField("free_files") and files > there.free_files:
        text = f"{files} files are to be made where {path} is, and {there.free_files} inodes are free"
        yield Reason("no-inodes", DESTINATION, text, f"Make room there: df -i {path} shows what is full.")


def _copied(subject: Subject) -> Iterator[tuple[File, File]]:
    """Each file and directory that is to be copied or made, with what the destination has at its path."""
    there = {(one.path, one.use): one for one in subject.destination.files}
    copies = ((here, there.get((here.path, here.use))) for here in copied(subject))
    for here, its in (*copies, *asked_for_a_place(subject)):
        if its is not None and its.file_system:
            yield here, its
