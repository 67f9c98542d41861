"""Starts a program that need not ask what an epoll watches: it is told that this is what the number says.

``python -I -S unasked.py PROGRAM ARGUMENT...``. The process remains the same. A seccomp filter answers kcmp(2) of
the kind KCMP_EPOLL_TFD with "the same", for somebody else has looked at what the tree's epolls watch
(migrate.inventory.epolls.say_all()). All other calls are the kernel's. Where there can be no filter it asks.

Uses nothing but the standard library. Source: man seccomp(2); include/uapi/linux/kcmp.h; criu/eventpoll.c.
"""

import ctypes
import os
import struct
import sys

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_ARCHITECTURE_X86_64, _KCMP_X86_64 = 0xC000003E, 312
_EPOLL_TFD = 7
#: Of struct seccomp_data: the call's number, its architecture, its third argument.
_NUMBER, _ARCHITECTURE, _KIND = 0, 4, 32
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ANSWER_0 = 0x7FFF0000, 0x00050000
#: Each: code, how many to skip where it is so, and where it is not, value.
FILTER = (
    (_LOAD, 0, 0, _ARCHITECTURE),
    (_EQUAL, 0, 5, _ARCHITECTURE_X86_64),
    (_LOAD, 0, 0, _NUMBER),
    (_EQUAL, 0, 3, _KCMP_X86_64),
    (_LOAD, 0, 0, _KIND),
    (_EQUAL, 0, 1, _EPOLL_TFD),
    (_RETURN, 0, 0, _ANSWER_0),
    (_RETURN, 0, 0, _ALLOW),
)


def main() -> int:
    """Returns only if it fails."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in FILTER))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(FILTER), ctypes.addressof(code)))
    ctypes.CDLL(None).prctl(_PR_SET_SECCOMP, _MODE_FILTER, program, 0, 0)
    os.execv(sys.argv[1], sys.argv[1:])
    return 1


if __name__ == "__main__":
    sys.exit(main())
