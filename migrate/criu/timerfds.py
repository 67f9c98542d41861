"""Timers of timerfd_create(2) in CRIU's images, where CRIU would set one to another time than it has.

The image has how long one has to go, and CRIU takes it as one that is not set if that is nothing. To one that was
set to a time of day (TFD_TIMER_ABSTIME) it adds the whole seconds of the time that it is then, so that it fires
up to a second early; to one that is not set as well, which fires at once. As relative ones both are right. A set
one that is to be told when the clock is set (TFD_TIMER_CANCEL_ON_SET) is only told as an absolute one, and stays
as it is.

A periodic one that has expired is set by the kernel when it is read, which it does not know of a new one: see
:mod:`migrate.inventory.expired_timers`. If it has expired again since that, it goes on with a whole period.

Source: criu/pie/restorer.c timerfd_arm(); fs/timerfd.c timerfd_show(), timerfd_setup_cancel(); CRIU's
images/timerfd.proto, fdinfo.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from migrate.criu import records

#: include/uapi/linux/timerfd.h
_ABSOLUTE, _CANCEL_ON_SET = 1, 2
#: How a message of a timer begins: its kind (TIMERFD), and the tag of its number. There may be thousands of others.
_BEGIN = b"\x08\x11\x10"


def set_right(images: Path) -> None:
    """Have CRIU set each for as long as it has to go.

    :raises ProtocolError: the image is not CRIU's.
    """
    files = images / "files.img"
    data = files.read_bytes() if files.exists() else b""
    if _BEGIN in data:
        files.write_bytes(records.with_messages(data, _messages(data)))


def _messages(data: bytes) -> Iterator[bytes]:
    from pycriu.images import pb

    for entry, message in records.read(data, pb.file_entry, "files.img"):
        if entry.HasField("tfd") and _was_wrong(entry.tfd):
            yield entry.SerializePartialToString()
        else:
            yield message


def _was_wrong(timer: Any) -> bool:
    """Set it right; whether it was not."""
    has_expired = timer.ticks and _is_set(timer.isec, timer.insec) and not _is_set(timer.vsec, timer.vnsec)
    if has_expired:
        timer.vsec, timer.vnsec = timer.isec, timer.insec
    told = timer.settime_flags & _CANCEL_ON_SET and _is_set(timer.vsec, timer.vnsec)
    is_early = timer.settime_flags & _ABSOLUTE and not told
    if is_early:
        timer.settime_flags &= ~_ABSOLUTE
    return has_expired or is_early


def _is_set(seconds: int, nanoseconds: int) -> bool:
    return bool(seconds or nanoseconds)
