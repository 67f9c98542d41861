"""Connects a unix socket as another user: ``python -I -S connecting.py DESCRIPTOR UID GID PATH``.

Writes why it failed, or nothing. What is asked for was there on the origin, so it does not matter whether that user
may open the path here: capabilities are kept, and who is told to be at this end is that user all the same.

Source: man prctl(2), PR_SET_SECUREBITS; net/unix/af_unix.c init_peercred().
"""

import ctypes
import os
import socket
import sys

_PR_SET_SECUREBITS, _NO_SETUID_FIXUP = 28, 1 << 2


def main() -> int:
    """The process."""
    descriptor, uid, gid, path = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if libc.prctl(_PR_SET_SECUREBITS, _NO_SETUID_FIXUP, 0, 0, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        os.setgroups([])
        os.setegid(gid)
        os.seteuid(uid)
        with socket.socket(fileno=descriptor) as made:
            made.setblocking(True)
            made.connect(path)
    except OSError as error:
        sys.stdout.write(error.strerror or str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
