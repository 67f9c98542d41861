"""Whether the destination lets be written, and made, what the process, CRIU and the copying need there. Pure.

A file system may be mounted read-only, and an inode may have an attribute (chattr +i, +a) that forbids it even to
root. CRIU makes the unix sockets of the process and its deleted files in their directories.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from migrate.checks.files import asked_for_a_place, copied, pairs, within
from migrate.checks.subject import DESTINATION, Subject, names
from migrate.errors import Reason
from migrate.pb.session_pb2 import File

_LETTERS = {File.IMMUTABLE: "i", File.APPEND_ONLY: "a"}


def writable_there(subject: Subject) -> Iterator[Reason]:
    """Each file, directory and socket that is written or made there."""
    making = {(one.path, one.use) for one in copied(subject)}
    for here, there in (*pairs(subject.process, subject.destination), *asked_for_a_place(subject)):
        if here.use == File.COPIED_TREE or not within(here.path, subject.along.copy_trees):
            reason = unwritable(here, there, made=(here.path, here.use) in making)
            if reason is not None:
                yield reason


def unwritable(here: File, there: File, *, made: bool) -> Reason | None:
    """Why what the process has *here* cannot be written or made there; None: it can, or need not.

    :param made: it is copied.
    """
    what = _what(here, there, made)
    if not what:
        return None
    path = here.path
    if there.read_only:
        text = f"{path}, {what}, is on a file system that is mounted read-only there ({there.read_only})"
        remedy = f"Mount it writable there: mount -o remount,rw {shlex.quote(there.read_only)}"
        return Reason("read-only", DESTINATION, text, remedy)
    if closed := _closed(here, there, made):
        text = f"{path}, {what}, cannot be there: {closed} is immutable or append-only (lsattr)"
        return Reason(
            "immutable", DESTINATION, text, f"Change that there: chattr -i -a {shlex.quote(closed)}"
        )
    return None


def _what(here: File, there: File, made: bool) -> str:
    """What is done there with the file, as a part of a sentence; "": nothing that changes anything."""
    if here.use == File.DELETED:
        return "which has been deleted, and is made again and deleted"
    if made or here.use == File.COPIED_TREE:
        return "which is to be copied"
    if here.use == File.SOCKET_DIRECTORY:
        return "in which the process has a unix socket"
    return "which the process writes" if here.written and here.regular and there.exists else ""


def _closed(here: File, there: File, made: bool) -> str:
    """What has an attribute in the way; "": nothing."""
    its = set(there.attributes)
    if here.use == File.DELETED:
        return there.closed_directory
    if made or here.use == File.COPIED_TREE:
        return here.path if its else there.closed_directory
    if here.append_only:
        its.discard(File.APPEND_ONLY)
    return here.path if its else ""


def attributes_lost(subject: Subject) -> Iterator[str]:
    """Notes: which attributes files and directories have that are copied without them."""
    found = [one for one in (*copied(subject), *_trees(subject)) if one.attributes]
    if found:
        letters = "".join(sorted({_LETTERS.get(one, "") for file in found for one in file.attributes}))
        paths = names(one.path for one in found)
        yield f"copied without its attributes ({letters}, see lsattr): {paths}; set them again there with chattr"


def _trees(subject: Subject) -> list[File]:
    return [one for one in subject.process.files if one.use == File.COPIED_TREE]
