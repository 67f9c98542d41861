"""Timers of timerfd_create(2) that were set to a time of day (TFD_TIMER_ABSTIME), in CRIU's images.

The image has how long they have to go. To one that is absolute CRIU adds the whole seconds of the time that it is
then, so that it fires up to a second early; to one that is not set as well, which fires at once. As relative ones
both are right. A set one that is to be told when the clock is set (TFD_TIMER_CANCEL_ON_SET) is only told as an
absolute one, and stays as it is.

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


def be_relative(images: Path) -> None:
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
        if entry.HasField("tfd") and _is_wrong(entry.tfd):
            entry.tfd.settime_flags &= ~_ABSOLUTE
            yield entry.SerializePartialToString()
        else:
            yield message


def _is_wrong(timer: Any) -> bool:
    is_set = timer.vsec or timer.vnsec
    return timer.settime_flags & _ABSOLUTE and not (is_set and timer.settime_flags & _CANCEL_ON_SET)
