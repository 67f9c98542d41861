"""Starts a program in a mount namespace: that of a tree that was moved here, whose /proc CRIU needs.

``python -I -S mount_namespace.py DESCRIPTOR PROGRAM ARGUMENT...``. The process remains the same. The
program is looked up in there by its path, and has to be the same file as here: something else may be mounted over
it, although nobody but root can have done that (:mod:`migrate.criu.own_namespace`).

Uses nothing but the standard library, all of it loaded before.
"""

import ctypes
import os
import sys

CLONE_NEWNS = 0x00020000


def main() -> int:
    """Returns only if it fails."""
    descriptor, command = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    here = os.stat(command[0])  # noqa: PTH116
    if libc.setns(descriptor, CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(descriptor)
    os.chdir("/")
    if not os.path.samestat(here, os.stat(command[0])):  # noqa: PTH116
        raise OSError(f"{command[0]} is another file there")
    os.execv(command[0], command)
    return 1


if __name__ == "__main__":
    sys.exit(main())
