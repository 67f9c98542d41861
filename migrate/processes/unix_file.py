"""Whether a socket file leads to a socket, whoever has it: the kernel's table shows one network namespace only.

The kernel looks for the socket of a file in all of them, and says whether there is one before anything else: for a
datagram socket that is to be connected a stream socket is of the wrong type, and where there is none it is refused.
So nobody has a connection to accept. Source: net/unix/af_unix.c unix_find_bsd().
"""

from __future__ import annotations

import os
import socket


def is_used(file: int) -> bool:
    """Whether somebody has the socket of *file*, a descriptor (O_PATH) of a socket file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(f"/proc/self/fd/{file}")
        except ConnectionRefusedError:
            return False
        except OSError:  # EPROTOTYPE: of another type; EPERM: it has a peer, and wants no other
            return True
    return True


def is_used_at(path: str) -> bool:
    """Whether somebody has the socket of the file at *path*; of a link at its end the one that it leads to.

    :raises OSError, ValueError: there is nothing, nor can there be.
    """
    file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return is_used(file)
    finally:
        os.close(file)
