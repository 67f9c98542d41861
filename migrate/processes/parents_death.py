"""The signal that a process wants to have when its parent dies (PR_SET_PDEATHSIG), in CRIU's images.

The parent of the tree stays at the origin. CRIU would give the signal to what it builds, whose parent is CRIU
itself: when that ends, a moment after all is done, the process would be killed. So it is taken out of the images
of the tree's root, and the user is told. Tasks whose parents move with them keep it.

Source: man PR_SET_PDEATHSIG(2const); kernel/exit.c reparent_leader(); CRIU's images/core.proto, thread_core.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.message import DecodeError

from migrate.errors import ProtocolError
from migrate.processes import pending

_U32 = struct.Struct("<I")
#: Two magic numbers and the length of the one message.
_HEAD_BYTES = 12


def forget(images: Path, pid: int, tids: Iterable[int]) -> list[str]:
    """Take the signal out of the images of process *pid*, of which *tids* are all threads.

    :return: a sentence for each signal that the process does not get any more.
    :raises ProtocolError: an image is not CRIU's.
    """
    signals = {number for tid in {pid, *tids} if (number := _forget_one(images / f"core-{tid}.img"))}
    return [
        f"process {pid} wanted {pending.name(number)} when its parent dies (PR_SET_PDEATHSIG); the parent has"
        " stayed behind, so nobody sends it now: end the process by other means"
        for number in sorted(signals)
    ]


def _forget_one(path: Path) -> int:
    from pycriu.images import pb

    if not path.exists():  # CRIU does not find it either, and says so
        return 0
    data = path.read_bytes()
    entry = pb.core_entry()
    try:
        (size,) = _U32.unpack_from(data, _HEAD_BYTES - _U32.size)
        entry.ParseFromString(data[_HEAD_BYTES : _HEAD_BYTES + size])
    except (struct.error, DecodeError):
        text = f"{path.name} is not an image of CRIU's"
        raise ProtocolError(text, phase="restore", role="destination") from None
    number = int(entry.thread_core.pdeath_sig)
    if number:
        entry.thread_core.ClearField("pdeath_sig")
        message = entry.SerializePartialToString()
        rest = data[_HEAD_BYTES + size :]
        path.write_bytes(data[: _HEAD_BYTES - _U32.size] + _U32.pack(len(message)) + message + rest)
    return number
