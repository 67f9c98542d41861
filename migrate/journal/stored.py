"""Reads what is kept under /run/migrate, and takes nothing for certain: neither that it is a file, nor its size.

What is wrong with one of them (a directory or a FIFO of that name, a disk that does not answer) concerns that one
alone: the others are of migrations that have nothing to do with it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from migrate import place
from migrate.errors import MigrateError

#: More than any journal has: that of ten thousand copied files has 5 MB.
MOST_BYTES = 64 << 20
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Damaged(MigrateError):
    """What is kept there cannot be read, or makes no sense."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} is damaged: {why}",
            hint=f"Undo by hand what {path.parent} names, then remove that directory.",
        )


class NotOurs(MigrateError):
    """The directory where all of that is kept is not root's alone."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"{place.STATE} {why}",
            hint=f"See who made or mounted it, then remove, rename or unmount it: migrate makes {place.STATE}"
            " itself, for root alone.",
        )


def read(path: Path) -> bytes:
    """What is in the file *path*.

    :raises FileNotFoundError: there is none (any more).
    :raises Damaged: it cannot be read, is no file, or is too long to be one of ours.
    """
    try:
        with os.fdopen(os.open(path, _FLAGS), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Damaged(path, "it is no file")
            # Room is made for as much as is asked for, at once.
            data = file.read(min(status.st_size, MOST_BYTES) + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Damaged(path, error.strerror or str(error)) from error
    if len(data) > MOST_BYTES:
        raise Damaged(path, f"it is longer than {MOST_BYTES >> 20} MiB")
    return data


def is_there() -> bool:
    """Whether there is the directory where all of it is kept.

    :raises NotOurs: it is a link, no directory, or somebody else's, or others may write to it.
    """
    try:
        status = place.STATE.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        raise NotOurs("is no directory")
    if not place.is_ours_alone(status):
        raise NotOurs("is not root's alone to write to")
    return True


def make() -> None:
    """Make that directory if it is missing.

    :raises NotOurs: see :func:`is_there`.
    """
    if not is_there():
        place.STATE.mkdir(mode=0o700, parents=True, exist_ok=True)
