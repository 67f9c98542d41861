"""Standard streams that whoever started a program has closed (``>&-``): opened on /dev/null, first of all.

The driver and the library have this file each, since an agent says hello before it loads the library; a test
compares them. Without it the first socket or file gets one of their numbers, and what is printed goes into it;
Python has None where a stream belongs. Source: man stdin(3); Python's documentation of sys.stdin.
"""

from __future__ import annotations

import errno
import os
import sys

_MODES = {0: "r", 1: "w", 2: "w"}


def open_closed() -> set[int]:
    """Open those of descriptors 0, 1, 2 that are closed; their numbers.

    What cannot be written in the locale's encoding is escaped from now on, on standard output and error.
    """
    closed = {number for number in _MODES if not _is_open(number)}
    for _ in closed:  # the lowest free number is taken
        os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, _MODES[0], closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, _MODES[1], closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, _MODES[2], closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # tests have others
            stream.reconfigure(errors="backslashreplace")
    return closed


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return False
    return True
