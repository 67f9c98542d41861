"""Old logs go when a new one begins: those of so many days ago, and all but the newest so many.

``MIGRATE_LOG_DAYS`` and ``MIGRATE_LOGS`` in the environment of whoever begins one say how many.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Mapping

from migrate import limits, place
from migrate.events import directory

#: Logs of so many migrations are kept, beside that of the one under way.
MOST = 200
DAYS, NUMBER = "MIGRATE_LOG_DAYS", "MIGRATE_LOGS"
_DAY_S = 86400


def kept(environment: Mapping[str, str]) -> tuple[float, int]:
    """For how many seconds, and how many; a value that is no number counts as none."""
    days, number = environment.get(DAYS, ""), environment.get(NUMBER, "")
    return (
        int(days) * _DAY_S if _is_number(days) else limits.LOG_KEPT_S,
        int(number) if _is_number(number) else MOST,
    )


def too_old(found: Iterable[tuple[str, float]], now_s: float, kept_s: float, number: int) -> list[str]:
    """Which of *found*, names and the times when they began, are to go. Pure."""
    newest = sorted(found, key=lambda one: one[1], reverse=True)
    return [name for rank, (name, at_s) in enumerate(newest) if rank >= number or now_s - at_s > kept_s]


def sweep(but: str) -> None:
    """Remove what is too old; not *but*, nor what a migration that is not over on this host has written.

    :raises OSError: there is no directory of logs that could be trusted.
    """
    with directory.root() as root:
        found = [
            (one.name, one.stat(follow_symlinks=False).st_mtime)
            for one in os.scandir(root)
            if one.is_dir(follow_symlinks=False)
            and place.valid_id(one.name)
            and one.name != but
            and not place.home(one.name).exists()
        ]
        for name in too_old(found, time.time(), *kept(os.environ)):
            shutil.rmtree(name, ignore_errors=True, dir_fd=root)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 7
