"""What is in a directory that the process uses, and would not be in the one that ``--copy-files`` makes there."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path

from migrate.inventory import walked
from migrate.inventory.neighbours import NO_DATA
from migrate.pb.session_pb2 import File

_USES = (File.OPEN, File.WORKING_DIRECTORY, File.WATCHED)
#: So many are told; and so many names are looked at, of a directory full of what goes along or is no data.
_TOLD, _MOST = 3, 10_000


def add(files: Iterable[File]) -> None:
    """Name in each directory among *files* what is in it, or below it, but for what is among them itself."""
    files = list(files)
    known = {one.path for one in files}
    for one in files:
        if one.directory and one.use in _USES:
            one.below.extend(of(one.path, known))


def of(path: str, known: Collection[str]) -> list[str]:
    """The first few names in the directory *path*, of files, links and empty directories that are not *known*."""
    found = (name for name in islice(_below(path), _MOST) if f"{path}/{name}" not in known)
    return [os.fsencode(name).decode(errors="replace") for name in islice(found, _TOLD)]


def _below(top: str) -> Iterator[str]:
    for directory, folders, names, fd in walked.walk(top):
        if directory != top and not folders and not names:
            yield os.path.relpath(directory, top)
        for name in (*folders, *names):
            if not name.startswith(".") and NO_DATA.fullmatch(name):
                continue
            try:
                mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
            except FileNotFoundError:
                continue
            if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
                yield str(Path(directory, name).relative_to(top))
