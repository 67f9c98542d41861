"""Numbers that a tree will need on this host: the kernel is told to hand them out late.

It gives PIDs upwards, each the next free one behind the last. Two hosts that were started alike are at about the
same number, so what serves the migration itself, or anybody, would get those of the tree between check and restore.

Source: kernel/pid.c alloc_pid() and pid_ns_ctl_handler(), which is /proc/sys/kernel/ns_last_pid.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

_LAST = Path("/proc/sys/kernel/ns_last_pid")
#: So many numbers may be given until the tree is built; a host that starts more is not helped.
_SOON = 4096


def behind(last: int, numbers: Iterable[int]) -> int:
    """Return the number after which to go on, so that none of *numbers* is given soon; *last* if none would be."""
    return max((one for one in numbers if last < one <= last + _SOON), default=last)


def pass_over(numbers: Iterable[int]) -> None:
    """Have the kernel go on behind those of *numbers* that it would give soon; nothing where it does not let us."""
    with contextlib.suppress(OSError, ValueError):
        last = int(_LAST.read_text())
        if (wanted := behind(last, numbers)) != last:
            _LAST.write_text(str(wanted))
