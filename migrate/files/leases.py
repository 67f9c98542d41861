"""Leases on files (F_SETLEASE): whoever opens the file breaks them, so it must not be opened.

The holder gets a signal, which kills a program that has no handler for it. Source: man fcntl(2), proc(5).
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from migrate.errors import MigrateError


def require_none(path: str) -> None:
    """Make sure that opening *path* for reading disturbs nobody.

    :raises MigrateError: somebody has a lease on it.
    :raises OSError: there is no such file.
    """
    if is_on(os.stat(path), held()):  # noqa: PTH116
        raise MigrateError(
            f"{path} has a lease (F_SETLEASE), which reading it would break",
            hint="Let the program give the lease back (Samba: `oplocks = no`), or put the file there yourself.",
        )


def held() -> frozenset[str]:
    """The files of this host with a lease, for :func:`is_on`.

    To read that waits for all processors, some 10 ms (fs/locks.c locks_start()): not for one file after the other.
    """
    return frozenset(parse(_text()))


def is_on(status: os.stat_result, held: Collection[str]) -> bool:
    """Whether somebody has a lease on the file that *status* is about."""
    return f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}" in held


def parse(text: str) -> list[str]:
    """The files with a lease, as ``MAJOR:MINOR:INODE``, that the content of /proc/locks names."""
    lines = (line.split() for line in text.split("\n"))
    return [fields[5] for fields in lines if len(fields) > 5 and fields[1] == "LEASE"]


def _text() -> str:
    try:
        return Path("/proc/locks").read_text()
    except OSError:
        return ""
