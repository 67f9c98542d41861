"""Which devices a process may have open: terminals, which are moved, and those that every host has alike."""

from __future__ import annotations

import os
import stat

#: Major number of /dev/null, zero, full, random, urandom, kmsg (Documentation/admin-guide/devices.txt).
_MEM_MAJOR = 1
#: /dev/mem, kmem and port are of that major too, and reach this host's hardware.
_HARDWARE_MINORS = frozenset({1, 2, 4})
#: /dev/ttyN, /dev/tty and console and ptmx, pseudo terminals (eight majors).
_TTY_MAJORS = frozenset({4, 5, *range(136, 144)})


def is_terminal(status: os.stat_result) -> bool:
    """Whether the device that *status* is about is a terminal."""
    return stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) in _TTY_MAJORS


def is_everywhere(status: os.stat_result) -> bool:
    """Whether it is one that any host has, and that has no state: /dev/null and its like."""
    if not stat.S_ISCHR(status.st_mode) or os.major(status.st_rdev) != _MEM_MAJOR:
        return False
    return os.minor(status.st_rdev) not in _HARDWARE_MINORS
