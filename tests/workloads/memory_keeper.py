"""Memory of every kind that a dump must carry, in two processes. Needs nothing but Python.

    memory_keeper.py MEGABYTES FIFO

Each process answers on FIFO with a line ``PID DIGEST``, the digest over all that memory as it sees it: once
when it is ready, and after each signal. SIGUSR1 writes to some pages first, SIGUSR2 changes nothing.

The second process is a fork of the first: it shares all pages until one of them writes.
"""

import ctypes
import hashlib
import mmap
import os
import random
import signal
import sys
from pathlib import Path

PAGE = mmap.PAGESIZE
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
DIRTY_PAGES = 100
#: Not in Python 3.11's mmap.
MAP_NORESERVE = 0x4000


def fill(memory: mmap.mmap, seed: int) -> mmap.mmap:
    generator = random.Random(seed)
    for offset in range(0, len(memory), 1 << 20):
        block = generator.randbytes(min(1 << 20, len(memory) - offset))
        memory[offset : offset + len(block)] = block
    return memory


def unreadable(content: bytes) -> int:
    """A page with *content* that the process may not touch; returns its address."""
    page = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page[: len(content)] = content
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), PAGE, 0)
    KEPT.append(page)
    return address


def memfd(size: int) -> mmap.mmap:
    file = os.memfd_create("keeper")
    os.ftruncate(file, size)
    return mmap.mmap(file, size, flags=mmap.MAP_SHARED)


KEPT: list[mmap.mmap] = []


def main(megabytes: int, fifo: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    private = fill(mmap.mmap(-1, megabytes << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), 1)
    shared = fill(mmap.mmap(-1, 2 << 20, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS), 2)
    named = fill(memfd(2 << 20), 3)
    # Sparse: a few pages in 64 GB, and one that was only read.
    huge = mmap.mmap(-1, 64 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    huge[32 << 30], huge[-1] = 1, huge[0]
    secret = unreadable(b"kept behind PROT_NONE")
    generation = 0
    child = os.fork()
    while True:
        libc = ctypes.CDLL(None)
        libc.mprotect(ctypes.c_void_p(secret), PAGE, mmap.PROT_READ)
        digest = hashlib.sha256(private)
        for part in (shared, named, huge[32 << 30 : (32 << 30) + PAGE], huge[-PAGE:], huge[:PAGE]):
            digest.update(part)
        digest.update(ctypes.string_at(secret, PAGE))
        libc.mprotect(ctypes.c_void_p(secret), PAGE, 0)
        with Path(fifo).open("w") as answer:
            answer.write(f"{os.getpid()} {digest.hexdigest()}\n")
        if signal.sigwait(SIGNALS) == signal.SIGUSR1:
            generation += 1
            generator = random.Random(generation + (child != 0) * 1000)
            for memory in (private, shared, named):
                for _ in range(DIRTY_PAGES):
                    offset = generator.randrange(len(memory) // PAGE) * PAGE
                    memory[offset : offset + 8] = generation.to_bytes(8, "little")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
