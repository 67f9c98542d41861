"""One file that the process has open by several names is one file on the destination, too. Pure."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator

from migrate.checks.beside import OF_THE_HOST
from migrate.checks.files import copied, pairs, within
from migrate.checks.subject import DESTINATION, Subject, names
from migrate.errors import Reason
from migrate.pb.session_pb2 import File


def one_file(subject: Subject) -> Iterator[Reason]:
    """What is written by one name is read by the other; copied each for itself they would be two."""
    paths = {one.path for one in copied(subject)}
    for group in _by_several_names(subject):
        there = {(its.device, its.inode) for its in group.values() if its.exists}
        missing = any(not its.exists for its in group.values())
        if paths.isdisjoint(group) and (missing or len(there) == 1):
            continue  # the same there; or missing, which is told anyway
        if not any(all(within(path, [tree]) for path in group) for tree in subject.along.copy_trees):
            text = f"{names(group)} are one file, which the process writes, and there they would be two"
            yield Reason("hard-links", DESTINATION, text, _remedy(group))


def _by_several_names(subject: Subject) -> Iterator[dict[str, File]]:
    """Of each such file path -> what the destination has at it."""
    found: defaultdict[tuple[int, int], dict[str, File]] = defaultdict(dict)
    written = set()
    for here, there in pairs(subject.process, subject.destination):
        if here.regular and here.inode:
            found[here.device, here.inode][here.path] = there
            if here.written:
                written.add((here.device, here.inode))
    return (group for key, group in found.items() if len(group) > 1 and key in written)


def _remedy(paths: Iterable[str]) -> str:
    folder = os.path.commonpath(os.path.dirname(path) for path in paths)  # noqa: PTH120
    other = "let the program open it by one of these names only."
    if OF_THE_HOST.fullmatch(folder):
        return other.capitalize()
    return f"Pass --copy-tree {folder}, which keeps them one; or {other}"
