"""``two_movers.py SOCKET fork|move``: one thread moves memory over other memory, then another forks or moves, too.

Nothing is in that memory yet, and whoever is on the other end of SOCKET gets the userfaultfd(2) of it, with the
addresses of three pages: ``moved``, ``covered`` and ``third``. A byte from there, and ``moved`` goes to where
``covered`` is; another, and it is forked, or ``third`` goes to where ``moved`` was. Then each process says what it
has at the place of ``covered``.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
import threading

PAGE = os.sysconf("SC_PAGESIZE")
READ_WRITE, PRIVATE_ANONYMOUS, MAYMOVE_FIXED = 3, 0x22, 3
SYS_USERFAULTFD, API, REGISTER, MISSING = 323, 0xC018AA3F, 0xC020AA00, 1
#: Of forks, moves and what is unmapped.
EVENTS = 1 << 1 | 1 << 2 | 1 << 6

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]


def move(page: int, place: int) -> None:
    assert libc.mremap(page, PAGE, PAGE, MAYMOVE_FIXED, place) == place


def main() -> None:
    other = socket.socket(fileno=int(sys.argv[1]))
    # One mapping, with a page between any two.
    whole = libc.mmap(None, 5 * PAGE, READ_WRITE, PRIVATE_ANONYMOUS, -1, 0)
    moved, covered, third = whole, whole + 2 * PAGE, whole + 4 * PAGE
    descriptor = libc.syscall(SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, API, struct.pack("=3Q", 0xAA, EVENTS, 0))
    fcntl.ioctl(descriptor, REGISTER, struct.pack("=4Q", whole, 5 * PAGE, MISSING, 0))
    socket.send_fds(other, [struct.pack("=3Q", moved, covered, third)], [descriptor])
    os.close(descriptor)
    other.recv(1)
    thread = threading.Thread(target=move, args=(moved, covered))
    thread.start()
    other.recv(1)
    if sys.argv[2] == "fork":
        child = os.fork()
    else:
        child = -1
        move(third, moved)
    other.send(struct.pack("=?Q", not child, ctypes.c_uint64.from_address(covered).value))
    if child == 0:
        os._exit(0)
    thread.join()


if __name__ == "__main__":
    main()
