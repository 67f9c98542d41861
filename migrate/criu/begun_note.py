"""What a CRIU leaves in /run that could not note there what it knows of the kernel: it was full, or it was killed.

As long as it is there each CRIU takes it for that of another one that is writing it now, and finds out all again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

#: Source: criu/kerndat.c kerndat_save_cache(), which writes this and renames it, and stays away where it is.
PATH = Path("/run/criu.kdat.tmp")


class BegunNote:
    """That of one CRIU, which has not begun when this is made: none that is there already is its own."""

    def __init__(self) -> None:
        self._before = self._which()

    def remove(self) -> None:
        """Remove what that CRIU, which has ended or come to its stages, has left; none that anybody has open."""
        with contextlib.suppress(OSError):
            note = os.open(PATH, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if _name(os.fstat(note)) != self._before:
                    # Refused while anybody else has it open. Source: man fcntl(2), F_SETLEASE.
                    fcntl.fcntl(note, fcntl.F_SETLEASE, fcntl.F_WRLCK)
                    PATH.unlink()
            finally:
                os.close(note)

    @staticmethod
    def _which() -> tuple[int, int, int] | None:
        with contextlib.suppress(OSError):
            return _name(PATH.lstat())
        return None


def _name(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_dev, status.st_ino, status.st_ctime_ns
