"""Connects a unix socket as another user: ``python -I -S connecting.py DESCRIPTOR UID GID PATH``.

Writes why it failed, or nothing. It is that user alone who opens the path, without root's rights: in a directory of
that user's it may lead anywhere.

Source: man unix(7), credentials(7); net/unix/af_unix.c init_peercred().
"""

import os
import socket
import sys


def main() -> int:
    """The process."""
    descriptor, uid, gid, path = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    try:
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
