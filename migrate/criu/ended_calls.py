"""System calls that the dump has ended with EINTR, in CRIU's images: they are to begin again.

See :mod:`migrate.processes.waits` for which, and why. Source: CRIU's images/core-x86.proto.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from migrate.criu import core
from migrate.pb.session_pb2 import EndedCall
from migrate.processes import waits


def begin_again(images: Path, calls: Iterable[EndedCall]) -> None:
    """Have each of *calls*, of threads as the images number them, begin again when the thread runs.

    What has come to its end otherwise stays as it is.

    :raises ProtocolError: an image is not CRIU's.
    """
    for one in calls:
        core.change(images / f"core-{one.tid}.img", functools.partial(_again, one.number))


def _again(number: int, entry: Any) -> bool:
    """Whether the registers of *entry* say that call *number* has ended, and now that it begins."""
    from pycriu.images import pb

    registers = entry.thread_info.gpregs
    if entry.mtype != pb.core_entry.X86_64 or number not in waits.NUMBERS:
        return False
    if (registers.ax, registers.cs) != (waits.ENDED, waits.CODE_64):
        return False
    if registers.orig_ax not in (number, waits.RESTART):
        return False
    values = {field.name: value for field, value in registers.ListFields()}
    for name, value in waits.again(number, values).items():
        setattr(registers, name, value)
    return True
