"""Files that a program keeps beside those that it has open and writes: it will need them later.

A log of redis is of no use without the base that it begins from, and only the log is open. Nobody can know which
files a program will want; these are those in the directories (and in those below them) of files that it writes,
which belong to the same user, and are no logs of the common kind.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from migrate.files import link_remap
from migrate.inventory import storage, walked
from migrate.inventory.described import describe
from migrate.pb.session_pb2 import File

#: Directories that many programs share, or people: what is there beside a file has nothing to do with it.
_COMMON = re.compile(
    r"/|/(srv|opt|root|run|tmp|home|mnt|media|data|etc|var|var/(lib|run|tmp|cache|spool))|/home/[^/]+"
    r"|/(var/log|dev|proc|sys|usr|run/user)(/.*)?"
)
#: Of what is of no use to a program that begins to use it.
NO_DATA = re.compile(r"\..*|.*\.(log|pid|lock|sock|tmp|swp|gz|bz2|xz|zst|bak|old|orig|pyc)(\.\d+)?|.*~")
_MOST = 1000


def of(files: Iterable[File], trees: Iterable[str] = ()) -> Iterator[File]:
    """Yield the neighbours of *files*, at most a thousand; not those in *trees*, which are copied anyway."""
    files = list(files)
    seen = {one.path for one in files}
    count = 0
    for folder, owner in _folders(files).items():
        for path, status in _below(folder):
            inside = any(path.startswith(f"{tree}/") for tree in trees)
            if path in seen or status.st_uid != owner or inside or count >= _MOST:
                continue
            seen.add(path)
            count += 1
            found = describe(path, File.NEIGHBOUR, status)
            try:
                found.storage = storage.name(path)
            except OSError:
                continue  # gone since
            yield found


def _folders(files: list[File]) -> dict[str, int]:
    """The directories of files that are written, with the owner of one of them."""
    found: dict[str, int] = {}
    for one in files:
        folder = str(Path(one.path).parent)
        log = one.append_only and NO_DATA.fullmatch(Path(one.path).name)
        if one.written and one.regular and not log and not _COMMON.fullmatch(folder):
            found[folder] = one.uid
    return found


def _below(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    for directory, _, names, fd in walked.walk(folder):
        for name in sorted(names):
            if NO_DATA.fullmatch(name) or not f"{directory}/{name}".isprintable():
                continue
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode) and not link_remap.is_one(name, status):
                yield f"{directory}/{name}", status
