"""``shifting.py SEED MEGABYTES FIFO``: two threads do to memory what a program may, and know what is in it.

Each thread has its own regions. It writes, reads, moves, grows, unmaps, gives back and maps pages as its random
numbers say, and forks children that look at what they have inherited; every page that is looked at is compared with
what it must be. What is wrong is written to the FIFO at once. On SIGUSR1 each looks at all of it, and says ``OK
STEPS``. They fork from SIGUSR2 on.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import threading
from typing import NoReturn

PAGE = os.sysconf("SC_PAGESIZE")
REGION_PAGES = 256
PRIVATE_ANONYMOUS, READ_WRITE, DONTNEED, MAYMOVE = 0x22, 3, 4, 1

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)

asked, forking = [0], list[bool]()
said = os.open(sys.argv[3], os.O_WRONLY)


def say(text: str) -> None:
    os.write(said, f"{text}\n".encode())


def mapped(pages: int) -> int:
    address = libc.mmap(None, pages * PAGE, READ_WRITE, PRIVATE_ANONYMOUS, -1, 0)
    assert address not in (None, ctypes.c_void_p(-1).value)
    return int(address)


class Region:
    """Memory, and a number for each page that all of it is filled with; 0: it was never written to."""

    def __init__(self, pages: int) -> None:
        self.start, self.numbers = mapped(pages), [0] * pages

    def write(self, page: int, number: int) -> None:
        ctypes.memmove(self.start + page * PAGE, number.to_bytes(8, "little") * (PAGE // 8), PAGE)
        self.numbers[page] = number

    def look(self, page: int) -> None:
        got = ctypes.string_at(self.start + page * PAGE, PAGE)
        if got != self.numbers[page].to_bytes(8, "little") * (PAGE // 8):
            say(f"BAD {os.getpid()} {self.start + page * PAGE:x} {got[:8].hex()} for {self.numbers[page]:x}")
            os._exit(1)

    def look_at_all(self) -> None:
        for page in range(len(self.numbers)):
            self.look(page)

    def resize(self, pages: int) -> None:
        """Where it is if that is possible, else elsewhere."""
        old = len(self.numbers)
        self.start = int(libc.mremap(self.start, old * PAGE, pages * PAGE, MAYMOVE, None))
        self.numbers = (self.numbers + [0] * pages)[:pages]

    def move(self) -> None:
        """To another place, where something else is mapped."""
        pages = len(self.numbers)
        place = mapped(pages)
        self.start = int(libc.mremap(self.start, pages * PAGE, pages * PAGE, MAYMOVE | 2, place))

    def give_back(self, page: int, pages: int) -> None:
        libc.madvise(self.start + page * PAGE, pages * PAGE, DONTNEED)
        self.numbers[page : page + pages] = [0] * pages

    def end(self) -> None:
        libc.munmap(self.start, len(self.numbers) * PAGE)


class Thread:
    """One that goes its own way. :ivar steps: how many it has taken."""

    def __init__(self, seed: int, pages: int) -> None:
        self.random, self.steps, self.answered = random.Random(seed), 0, 0
        self.regions = [self.full() for _ in range(max(1, pages // REGION_PAGES))]

    def full(self) -> Region:
        """Another region, written to everywhere."""
        region = Region(REGION_PAGES)
        for page in range(REGION_PAGES):
            region.write(page, self.random.getrandbits(64))
        return region

    def run(self) -> NoReturn:
        while True:
            self.step()
            if self.answered < asked[0]:
                for region in self.regions:
                    region.look_at_all()
                self.answered += 1
                say(f"OK {self.steps}")

    def step(self) -> None:
        self.steps += 1
        chosen, region = self.random.random(), self.random.choice(self.regions)
        page = self.random.randrange(len(region.numbers))
        pages = min(len(region.numbers) - page, self.random.randrange(1, 20))
        if chosen < 0.4:
            region.write(page, self.random.getrandbits(64))
        elif chosen < 0.9:
            region.look(page)
        elif chosen < 0.93:
            region.give_back(page, pages)
        elif chosen < 0.95:
            region.move()
        elif chosen < 0.97:
            region.resize(self.random.randrange(REGION_PAGES // 2, REGION_PAGES * 2))
        elif chosen < 0.985:
            region.end()
            self.regions.remove(region)
            self.regions.append(self.full())
        elif chosen < 0.987 and forking:
            self.fork()

    def fork(self) -> None:
        """A child looks at what it has got, and does a little with it."""
        pid = os.fork()
        if pid == 0:
            for region in self.random.sample(self.regions, min(4, len(self.regions))):
                region.look_at_all()
            for _ in range(200):
                self.random.choice(self.regions).look(0)
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            say(f"BAD child {pid}")
            os._exit(1)


def main() -> None:
    pages = (int(sys.argv[2]) << 20) // PAGE
    threads = [Thread(int(sys.argv[1]) + number, pages // 2) for number in range(2)]
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    for thread in threads:
        threading.Thread(target=thread.run, daemon=True).start()
    say("READY")
    while True:
        if signal.sigwait(SIGNALS) == signal.SIGUSR1:
            asked[0] += 1
        else:
            forking.append(True)


if __name__ == "__main__":
    main()
