"""What a directory of the destination's has that ``--copy-tree`` replaces: some of it may be nowhere else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator

from migrate.inventory.described import shown
from migrate.pb.session_pb2 import File

#: So much of what is in one directory is told, and no more is looked at.
MOST_NAMES, MOST_BYTES = 10_000, 256 << 10
_TOLD = 3


def add(there: File) -> None:
    """Say in *there*, a directory of this host, what is in it; its directories count by what is in them."""
    left = MOST_BYTES
    for name in _below(there.path):
        left -= len(name.encode())
        if left < 0 or len(there.below) == MOST_NAMES:
            there.more_below = True
            return
        there.below.append(name)


def _below(top: str) -> Iterator[str]:
    """One after the other, however many a directory has."""
    directories = [top]
    while directories:
        with contextlib.suppress(OSError), os.scandir(directories.pop()) as found:
            for one in found:
                if one.is_dir(follow_symlinks=False):
                    directories.append(one.path)
                else:
                    yield shown(one.path.removeprefix(f"{top}/"))


def notes(there: Iterable[File]) -> list[str]:
    """What goes there with the directories that are replaced, because this host has nothing of that name.

    :param there: the destination's answers about files.
    """
    found = []
    for one in there:
        gone = sorted(name for name in one.below if not os.path.lexists(f"{one.path}/{name}"))
        if gone:
            found.append(_words(one, gone))
    return found


def _words(there: File, gone: list[str]) -> str:
    count = f"{'at least ' if there.more_below else ''}{len(gone)}"
    files, are, go = ("file", "is", "goes") if len(gone) == 1 else ("files", "are", "go")
    more = ", ..." if len(gone) > _TOLD or there.more_below else ""
    return (
        f"{count} {files} in {there.path} on the destination {are} not in the one here, and {go} with it when the"
        f" process has moved: {', '.join(gone[:_TOLD])}{more}"
    )
