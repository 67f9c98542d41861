"""When two file locks cannot be held at once. Pure.

A lock is ``KIND MODE FIRST LAST`` as /proc/PID/fdinfo has it: ``FLOCK WRITE 0 EOF``. Locks of flock(2) do not
meet those of fcntl(2); those of fcntl(2) meet each other, whether a process or an open file owns them.
Source: man flock(2), fcntl_locking(2); fs/locks.c.
"""

from __future__ import annotations

_SAME = {"OFDLCK": "POSIX"}
_END = 1 << 63


def conflict(ours: str, theirs: str) -> bool:
    """Whether a program cannot get the lock *ours* while another one has *theirs*."""
    one, other = ours.split(), theirs.split()
    if len(one) != 4 or len(other) != 4 or "WRITE" not in (one[1], other[1]):
        return False
    if _SAME.get(one[0], one[0]) != _SAME.get(other[0], other[0]):
        return False
    return _byte(one[2]) <= _byte(other[3]) and _byte(other[2]) <= _byte(one[3])


def _byte(text: str) -> int:
    return int(text) if text.isdecimal() else _END
