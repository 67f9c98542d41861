"""Takes back what was copied to this host, through the directories in which it was done.

No symbolic link is followed, and a directory that is another one than at the copy is left alone: see
:mod:`migrate.files.beneath`. Journals of older versions do not say which directory it was.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from migrate.errors import MigrateError
from migrate.files import beneath


def put_back(entry: Mapping[str, Any]) -> str:
    """A file that was copied here: the one it replaced comes back, or there is none again.

    :raises MigrateError, OSError: it cannot be; nothing has changed.
    """
    path, backup = Path(entry["path"]), entry["backup"]
    with _folder(entry) as folder:
        if folder is None:
            return f"{path}: its directory is gone"
        with beneath.acting_as_owner(folder, ours=True), contextlib.suppress(FileNotFoundError):
            if backup:
                os.rename(Path(backup).name, path.name, src_dir_fd=folder, dst_dir_fd=folder)  # noqa: PTH104
            else:
                os.unlink(path.name, dir_fd=folder)  # noqa: PTH108
    return f"{path} as before"


def forget(entry: Mapping[str, Any]) -> None:
    """The process runs here: what a copied file has replaced is not needed any more.

    :raises MigrateError, OSError: it cannot be removed.
    """
    if not entry["backup"]:
        return
    with _folder(entry) as folder:
        if folder is not None:
            with beneath.acting_as_owner(folder, ours=True), contextlib.suppress(FileNotFoundError):
                _remove(Path(entry["backup"]).name, folder)


def _remove(name: str, folder: int) -> None:
    if stat.S_ISDIR(beneath.mode(folder, name)):
        _require_one_file_system(name, folder)
        shutil.rmtree(name, dir_fd=folder)
    else:
        os.unlink(name, dir_fd=folder)  # noqa: PTH108


def _require_one_file_system(name: str, folder: int) -> None:
    """What is mounted in a directory is not the directory's, and does not go with it."""
    device = os.stat(name, dir_fd=folder, follow_symlinks=False).st_dev
    for directory, _, _, fd in os.fwalk(name, dir_fd=folder):
        if os.fstat(fd).st_dev != device:
            raise MigrateError(
                f"something is mounted on {directory}: it was left as it is, with all that is beside it"
            )


def remove_directory(entry: Mapping[str, Any]) -> str:
    """A directory that was made for a copied file, unless something else is in it by now."""
    path = Path(entry["path"])
    with contextlib.suppress(OSError), _folder(entry) as folder:
        if folder is not None:
            with beneath.acting_as_owner(folder, ours=True):
                os.rmdir(path.name, dir_fd=folder)  # noqa: PTH106
    return f"{path} removed if it was empty"


@contextlib.contextmanager
def _folder(entry: Mapping[str, Any]) -> Generator[int | None, None, None]:
    """The directory of the entry's file; None when it is gone."""
    path = Path(entry["path"])
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(beneath.directory(path.parent))
        except FileNotFoundError:
            yield None
            return
        if entry.get("folder", "") not in ("", beneath.identity(folder)):
            raise MigrateError(f"{path.parent} is another directory now: {path.name} was not put back in it")
        yield folder
