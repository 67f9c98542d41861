"""Which path leads to a file that a process uses: its own, or another name that it has beside one that is gone."""

from __future__ import annotations

import contextlib
import itertools
import os

#: So many names of a directory, to find another one of a file.
_MOST_LOOKED_AT = 10_000


def leads_to(path: str, status: os.stat_result) -> bool:
    """Whether *path* leads to that file: below a later mount, or beyond a bind mount of a part, none does."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.lstat(path), status)  # noqa: PTH116
    return False


def other_name(path: str, status: os.stat_result) -> str:
    """Another name of a file beside the one that is gone, as glibc's sem_open() leaves it; "": it has none there.

    CRIU gives it one as well, for the time of its dump.
    """
    found = []
    with contextlib.suppress(OSError), os.scandir(os.path.dirname(path)) as entries:  # noqa: PTH120
        for entry in itertools.islice(entries, _MOST_LOOKED_AT):
            if entry.inode() == status.st_ino and not entry.name.startswith("link_remap."):
                found.append(entry)
    same = (one.path for one in found if os.path.samestat(one.stat(follow_symlinks=False), status))
    return min(same, default="")
