"""Memory sent ahead, in rounds, while the process runs; at the freeze only what differs is sent.

Each round is a *level*: a directory ``level-1``, ``level-2``, … in the image directory, with pagemap and
pages images in CRIU's format, which are sent as they are written. The first level holds all memory, a
later one what has changed since. On the destination they are nested as CRIU's restore expects it: the last
one is the images' ``parent``, the one before is its ``parent``. Pages are compared by content, so neither
the kernel nor CRIU has to track writes; a page read too early, torn or not at all only travels again.

Memory: one copy of the tree's memory in the image directory, plus what changed between rounds. The page
server (:mod:`migrate.memory.page_server`) compares CRIU's dump with it on the fly, so there is no second copy.
"""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from migrate.errors import MAKE_ROOM, ImageError
from migrate.memory import sources
from migrate.memory.pagemap import PAGE_BYTES, Copies, Copy, Pagemap, changed_pages
from migrate.memory.sources import Key, Source
from tcpcp.kernel.writing import write_all

#: Rounds end when one changed less than this, or more than half of what the one before did.
ENOUGH_BYTES = 1 << 20
MOST_ROUNDS = 3
#: Read and compared at once: it stays in a processor's cache.
BLOCK_BYTES = 1 << 20
#: Of the image directory's free space, left for the dump itself.
SPARED = 0.25


class Ahead:
    """The levels of one migration, and the newest copy of each page for comparison.

    :param directory: the image directory, on a tmpfs; removing it is all there is to undo.
    :param tasks: the PIDs of the tree as it is now, called once a round.
    :param grew: told the name of each file in the directory, after something was written to its end.
    :param deadline: on ``time.monotonic()``: no page is read after it.
    :param room_bytes: how much may be written; by default most of what is free.
    :ivar read_bytes: memory read in all rounds.
    :ivar written_bytes: memory written to the levels, so memory to be sent ahead.
    """

    def __init__(
        self,
        directory: Path,
        tasks: Callable[[], Iterable[int]],
        grew: Callable[[str], None],
        *,
        deadline: float = float("inf"),
        room_bytes: int | None = None,
    ) -> None:
        self._directory, self._tasks, self._deadline = directory, tasks, deadline
        self._grew = grew
        self._room_bytes = _room(directory) if room_bytes is None else room_bytes
        self._copies: dict[Key, Copies] = {}
        self._maps: dict[tuple[Key, int], tuple[mmap.mmap, int]] = {}
        self._buffer = mmap.mmap(-1, BLOCK_BYTES)
        self._over = False
        self.levels = 0
        self.read_bytes = self.written_bytes = 0

    def run(self, sent: Callable[[], None]) -> None:
        """Do rounds until little changes between them.

        :param sent: waits until everything in the image directory has left this host; only then does
            another round, or a freeze, have less to send.
        :raises ImageError: a level could not be written; the image directory is to be thrown away.
        """
        before = float("inf")
        while self.levels < MOST_ROUNDS and not self._over:
            changed = self.round()
            sent()
            if changed < ENOUGH_BYTES or changed > before / 2:
                return
            before = changed

    def round(self) -> int:
        """Write the next level: what has changed since the last one, with the first everything.

        :return: bytes of memory written to it.
        :raises ImageError: as :meth:`run`.
        """
        try:
            return self._round()
        except OSError as error:
            hint = MAKE_ROOM if error.errno == errno.ENOSPC else ""
            text = f"cannot copy the memory: {error.strerror}"
            raise ImageError(text, hint=hint) from error

    def _round(self) -> int:
        before = self.written_bytes
        self.levels += 1
        level = self._directory / f"level-{self.levels}"
        level.mkdir(mode=0o700)
        seen = set()
        for source in sources.sources(self._tasks()):
            with source:
                if source.key not in seen:
                    self._copy(source, level)
                    seen.add(source.key)
        for number, (key, copies) in enumerate(self._copies.items(), 1):
            (level / f"pages-{number}.img").touch()
            (level / key.image).write_bytes(Pagemap(number, copies.runs(self.levels)).to_bytes())
            self._grew(f"{level.name}/pages-{number}.img")
            self._grew(f"{level.name}/{key.image}")
        return self.written_bytes - before

    def _copy(self, source: Source, level: Path) -> None:
        """Write what differs of one source to its pages image in *level*, and remember it."""
        known = self._copies.setdefault(source.key, Copies())
        number = list(self._copies).index(source.key) + 1
        newer: list[Copy] = []
        view = memoryview(self._buffer)
        with (level / f"pages-{number}.img").open("xb+", buffering=0) as file:
            for start, size in self._blocks(source, view):
                for begin, end in self.changed(source.key, start, sources.address_of(self._buffer), size):
                    _append(newer, Copy(begin, end, self.levels, file.tell()))
                    write_all(file.fileno(), view[begin - start : end - start])
                    self._room_bytes -= end - begin
                self._grew(f"{level.name}/pages-{number}.img")
            if newer:
                copied = mmap.mmap(file.fileno(), file.tell(), flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
                self._maps[source.key, self.levels] = copied, sources.address_of(copied)
                self.written_bytes += file.tell()
        self._copies[source.key] = known.overlaid(newer)

    def _blocks(self, source: Source, view: memoryview) -> Iterator[tuple[int, int]]:
        """Read the source into *view*, block by block: (address, bytes), ascending."""
        done = 0
        for begin, end in source.runs():
            start = max(begin, done)
            while start < end:
                if time.monotonic() >= self._deadline or self._room_bytes < BLOCK_BYTES:
                    self._over = True
                    return
                size = source.read(view[: end - start], start)
                if size:
                    self.read_bytes += size
                    yield start, size
                start = done = start + max(size, PAGE_BYTES)

    def changed(self, key: Key, start: int, address: int, size: int) -> Iterator[tuple[int, int]]:
        """Compare memory with its newest copy.

        :param start: where the memory lies in the process, or in the shared memory.
        :param address: where *size* bytes of its content lie here; it must not change meanwhile.
        :return: (start, end) of what differs or has no copy, ascending; two of them may touch.
        """
        for begin, end, copy in self._copies.get(key, Copies()).pieces(start, start + size):
            if copy is None:
                yield begin, end
                continue
            here = address + begin - start
            there = self._maps[key, copy.level][1] + copy.offset + begin - copy.start

            def equal(first: int, count: int, here: int = here, there: int = there) -> bool:
                offset = first * PAGE_BYTES
                return sources.equal(here + offset, there + offset, count * PAGE_BYTES)

            for first, count in changed_pages((end - begin) // PAGE_BYTES, equal):
                yield begin + first * PAGE_BYTES, begin + (first + count) * PAGE_BYTES


def _append(copies: list[Copy], copy: Copy) -> None:
    """Append *copy*, as part of the last one where that goes on in it: offsets go on by themselves."""
    if copies and copies[-1].end == copy.start:
        copies[-1] = copies[-1]._replace(end=copy.end)
    else:
        copies.append(copy)


def _room(directory: Path) -> int:
    disk = os.statvfs(directory)
    return int(disk.f_bavail * disk.f_frsize * (1 - SPARED))
