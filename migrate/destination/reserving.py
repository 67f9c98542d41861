"""What the process of a reserve does: it has the kernel find memory before CRIU needs it, and holds it.

``python -I -S reserving.py MOST_BYTES``: for each byte that comes from standard input it takes a piece, if what has
still to come has room beside it. It is killed to give all back, and ends with who started it. Where memory runs
out it is the first to be killed; nobody loses anything by that.

Uses nothing but the standard library, and little of it: it begins while images come.

Source: man madvise(2): MADV_POPULATE_WRITE, Linux 5.14; older ones refuse it, and nothing is held.
"""

import ctypes
import mmap
import os
import signal
import sys

PIECE_BYTES = 16 << 20
#: Left to everybody else, beside what the images still need.
SPARED_BYTES = 256 << 20
_PR_SET_PDEATHSIG = 1
_MADV_POPULATE_WRITE = 23


def main() -> int:
    """The process's life."""
    # The standard input may be somebody else's, too; the end of the thread that has started us is not.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("1000")
    most, arrived, held = int(sys.argv[1]), 0, list[mmap.mmap]()
    while asked := os.read(0, 1 << 12):
        for _ in asked:
            arrived += PIECE_BYTES
            if len(held) * PIECE_BYTES < most and has_room(available_bytes(), most - arrived):
                held.append(_taken())
    return 0


def has_room(available: int, coming: int) -> bool:
    """Whether a piece may be taken.

    :param available: bytes of memory that can be had. :param coming: of images that have not arrived yet.
    """
    return available >= max(0, coming) + PIECE_BYTES + SPARED_BYTES


def available_bytes() -> int:
    """What can be had without taking it from a program; 0 where nobody says so."""
    with open("/proc/meminfo", "rb") as file:  # noqa: PTH123
        for line in file:
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def _taken() -> mmap.mmap:
    """:raises OSError: the kernel does not give it."""
    piece = mmap.mmap(-1, PIECE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    piece.madvise(_MADV_POPULATE_WRITE)
    return piece


if __name__ == "__main__":
    sys.exit(main())
