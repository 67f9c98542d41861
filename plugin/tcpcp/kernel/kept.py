"""A descriptor that the library keeps: whether its number is still that of the file that we opened.

A daemon closes all descriptors that it finds, and the next file that the program opens has the number that was
ours. Nobody tells us. So who keeps a descriptor from one call to the next asks here before the number is used,
and does not close what is not ours.

Source: fstat(2); net/socket.c, where each socket has an inode of its own; fs/anon_inodes.c, where the objects of
BPF have one inode in common, so that they are asked for their own numbers.
"""

from __future__ import annotations

import os
import stat

from tcpcp.kernel import bpf


class Kept:
    """The descriptor *number*, open and ours now. Its file has to be a socket or an object of BPF.

    :raises OSError: EBADF, it is not open.
    """

    __slots__ = ("_identity", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self._identity = _identity(number)

    @property
    def is_ours(self) -> bool:
        """Whether the number is still that file's."""
        try:
            return _identity(self.number) == self._identity
        except OSError:
            return False

    def close(self) -> None:
        """Close it, if it is ours still."""
        if self.is_ours:
            os.close(self.number)


def _identity(number: int) -> tuple[int, int, bytes]:
    status = os.fstat(number)
    object_ = b"" if stat.S_ISSOCK(status.st_mode) else bpf.identity(number)
    return status.st_dev, status.st_ino, object_
