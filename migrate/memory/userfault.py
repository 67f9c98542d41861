"""The kernel's userfaultfd(2): missing pages of another process are filled in by us, and we hear what it maps.

A descriptor belongs to one address space. While any process has it open, a thread that touches a missing page waits
for whoever reads from it; when the last one closes it, what is still missing is zeros from then on.

Source: include/uapi/linux/userfaultfd.h; man userfaultfd(2), ioctl_userfaultfd(2); mm/userfaultfd.c mfill_atomic().
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from typing import NamedTuple

from migrate.memory.pagemap import PAGE_BYTES

MESSAGE_BYTES = 32
FAULT, FORK, REMAP, REMOVE, UNMAP = range(0x12, 0x17)

_MESSAGE = struct.Struct("=B7x3Q")
_API, _COPY, _ZERO, _WAKE = 0xC018AA3F, 0xC028AA03, 0xC020AA04, 0x8010AA02
_API_VERSION = 0xAA
#: UFFD_FEATURE_EVENT_FORK, _REMAP, _REMOVE and _UNMAP, which CRIU asks for (criu/uffd.c NEED_UFFD_API_FEATURES).
_FEATURES = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6
_THREE, _COPYING, _ZEROING, _RANGE = map(struct.Struct, ("=3Q", "=4Qq", "=3Qq", "=2Q"))
_SYS_USERFAULTFD = 323
#: What a process maps lies between them; below the first the kernel may refuse a range (vm.mmap_min_addr).
_FIRST, _END = 1 << 20, (1 << 47) - PAGE_BYTES

_libc = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    """What a process has done; *first* to *third* are

    - ``FAULT``: flags, the address that a thread waits at;
    - ``FORK``: our descriptor of the child's address space, which reading this has made;
    - ``REMAP``: the old address, the new one, how many bytes;
    - ``REMOVE``, ``UNMAP``: the first address, and the one behind the last.
    """

    kind: int
    first: int
    second: int
    third: int


def parse(message: bytes) -> Event:
    """A message that was read from a descriptor."""
    kind, first, second, third = _MESSAGE.unpack(message)
    return Event(kind, first & 0xFFFFFFFF if kind == FORK else first, second, third)


def available() -> bool:
    """Whether this process may have one, and it tells of all that CRIU asks for."""
    descriptor = _libc.syscall(_SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor < 0:
        return False
    try:
        fcntl.ioctl(descriptor, _API, bytearray(_THREE.pack(_API_VERSION, _FEATURES, 0)))
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def copy(descriptor: int, start: int, source: int, size: int) -> tuple[int, int]:
    """Fill in *size* bytes at *start* from *source* in our memory, and wake who waits for them.

    :return: how many were filled in; why no more, an errno: EEXIST: the next page is there; EAGAIN: the process is
        changing its mappings, and this can go on when the event was read; ENOENT: not within one mapping of those
        that are waited for, which may be since it was moved and we have not read so (:func:`all_is_told`); ESRCH:
        the process has ended; ENOMEM.
    """
    argument = bytearray(_COPYING.pack(start, source, size, 0, 0))
    return _filled(descriptor, _COPY, argument, _COPYING)


def all_is_told(descriptor: int) -> bool:
    """Whether the process has not changed its mappings without our having read so: False while it is at it.

    The kernel looks at that before it refuses to fill in nothing at all (fs/userfaultfd.c userfaultfd_copy()).
    """
    return copy(descriptor, _FIRST, 0, 0)[1] != errno.EAGAIN


def zero(descriptor: int, start: int) -> int:
    """Fill in a page of zeros, and wake who waits for it: 0, or an errno as of :func:`copy`."""
    argument = bytearray(_ZEROING.pack(start, PAGE_BYTES, 0, 0))
    return _filled(descriptor, _ZERO, argument, _ZEROING)[1]


def wake(descriptor: int, start: int, size: int) -> None:
    """Have who waits there look again."""
    with contextlib.suppress(OSError):  # the process has ended
        fcntl.ioctl(descriptor, _WAKE, _RANGE.pack(start, size))


def wake_all(descriptor: int) -> None:
    """Have all who wait look again."""
    wake(descriptor, _FIRST, _END - _FIRST)


def _filled(descriptor: int, request: int, argument: bytearray, form: struct.Struct) -> tuple[int, int]:
    try:
        fcntl.ioctl(descriptor, request, argument)
    except OSError as error:
        number = error.errno or errno.EIO
        # Of what fills them in only in part the field of results says how much; else it has the errno, negative.
        return max(0, form.unpack(argument)[-1]), number
    return form.unpack(argument)[-1], 0
