"""The destination's answers about the origin's files: what is here, what is in it, and who uses it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from migrate.errors import MigrateError
from migrate.files.content import Digests
from migrate.files.locks import conflict
from migrate.inventory import described, holders, replaced, room
from migrate.pb.session_pb2 import File
from migrate.processes import users


def there(wanted: list[File]) -> list[File]:
    """Return for each of *wanted* what is here at its path, with those who write it or hold its locks."""
    found = list(described.there(wanted))
    _add_holders(wanted, found)
    for here in found:
        room.add(here)
        if here.use == File.COPIED_TREE and here.directory:
            here.mounts.extend(users.mounted(here.path))
            here.writers.extend(users.of(here.path, besides={os.getpid()}))
            replaced.add(here)
    return found


def contents(wanted: list[File], digests: Digests) -> list[File]:
    """As :func:`there`, and with the content of regular files of the same size; b"" for what cannot be read."""
    return list(_read(wanted, there(wanted), digests))


def _read(wanted: list[File], found: list[File], digests: Digests) -> Iterator[File]:
    for one, here in zip(wanted, found, strict=True):
        if here.regular and not one.build_id and here.size_bytes == one.size_bytes:
            try:
                here.content = digests.of(one.path)
            except (MigrateError, OSError):
                here.content = b""
        yield here


def _add_holders(wanted: list[File], found: list[File]) -> None:
    """Of the host's processes only those matter that have one of these files open."""
    interesting = [
        (one, here)
        for one, here in zip(wanted, found, strict=True)
        if here.exists and (one.locks or one.written)
    ]
    held = holders.of({(here.device, here.inode) for _, here in interesting}, besides={os.getpid()})
    for one, here in interesting:
        for holder in held.get((here.device, here.inode), ()):
            if holder.writes and holder.who not in here.writers:
                here.writers.append(holder.who)
            clash = any(conflict(ours, theirs) for ours in one.locks for theirs in holder.locks)
            if clash and holder.who not in here.lockers:
                here.lockers.append(holder.who)
