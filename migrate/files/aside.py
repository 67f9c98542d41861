"""A directory of the destination's that ``--copy-tree`` replaces gets another name, with all that is in it."""

from __future__ import annotations

import errno
import os
import shlex
from pathlib import Path

from migrate.errors import MigrateError, Taken
from migrate.processes import users


def require_unused(path: Path) -> None:
    """Make sure that no program here uses something in it. :raises Taken: one does."""
    if found := users.of(str(path), besides={os.getpid()}):
        text = f"{path} is to be replaced there, and is used by {', '.join(found[:3])} since the check"
        raise Taken(text, hint="End that program there, or let one of the two use another directory.")


def rename(path: Path, kept: str, folder: int) -> None:
    """Give *path*, in the open directory *folder*, the name *kept* there.

    :raises MigrateError: it is of a lower layer of an overlay; it is as it was. :raises OSError: as rename(2).
    Source: fs/overlayfs/dir.c ovl_can_move(); Documentation/filesystems/overlayfs.rst redirect_dir.
    """
    try:
        os.rename(path.name, kept, src_dir_fd=folder, dst_dir_fd=folder)  # noqa: PTH104
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        quoted, new = shlex.quote(str(path)), shlex.quote(f"{path}.new")
        raise MigrateError(
            f"{path} cannot be put aside there: the directory is from a lower layer of an overlay file system, as"
            " of a container's image, and such a one cannot be renamed",
            hint=f"Make it anew there, `cp -a {quoted} {new} && rm -r {quoted} && mv {new} {quoted}`, or name a"
            " directory in it that was made there.",
        ) from error
