"""The images of a tree on the destination: what of its memory is to be filled in later, mapped here to be so.

CRIU is told by its own images what to leave out: they are written anew where they mark more than is to be.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from migrate.errors import ImageError
from migrate.memory import lazy
from migrate.memory.lazy import Level
from migrate.memory.missing import Piece
from migrate.memory.pagemap import Pagemap, messages
from migrate.memory.sources import TASK, Key, address_of

#: Where CRIU's restore looks for pages that an image does not have (criu/include/image.h CR_PARENT_LINK).
PARENT = "parent"
_MM = re.compile(r"mm-([1-9][0-9]{0,9})\.img")


class LaterImages:
    """Those of a directory.

    :ivar tasks: PID, as CRIU knows it, -> what is left out of it, ascending; every living task of the tree. The
        sources are addresses in this process, as long as this object lives.
    :raises ImageError, OSError: they are not CRIU's images, or not whole.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mapped: dict[Path, mmap.mmap] = {}
        entries = {pid: _mm_entry(path) for pid, path in _mm_images(directory)}
        spans = lazy.spans(entries)
        self.tasks: Mapping[int, list[Piece]] = {pid: self._task(pid, spans[pid]) for pid in entries}

    @property
    def size_bytes(self) -> int:
        """How much is left out."""
        return sum(one.end - one.start for pieces in self.tasks.values() for one in pieces)

    def _task(self, pid: int, allowed: list[lazy.Span]) -> list[Piece]:
        levels = self._levels(Key(TASK, pid).image)
        if not levels:
            return []
        top = levels[0].pagemap
        runs = lazy.marked(top.runs, allowed)
        if runs != top.runs:
            top = Pagemap(top.pages_id, runs)
            (self._directory / Key(TASK, pid).image).write_bytes(top.to_bytes())
        levels[0] = Level(0, top)
        return [self._piece(levels[copy.level], copy) for copy in lazy.later(levels)]

    def _levels(self, image: str) -> list[Level]:
        """The pagemap of one task in the images, in their parent, and so on."""
        found: list[Level] = []
        while (path := self._place(len(found)) / image).exists():
            found.append(Level(len(found), Pagemap.from_bytes(path.read_bytes())))
        return found

    def _place(self, level: int) -> Path:
        return self._directory.joinpath(*[PARENT] * level)

    def _piece(self, level: Level, copy: Any) -> Piece:
        path = self._place(level.number) / f"pages-{level.pagemap.pages_id}.img"
        memory = self._memory(path)
        if copy.offset + copy.end - copy.start > len(memory):
            raise ImageError(f"{path.name} is cut")
        return Piece(copy.start, copy.end, address_of(memory) + copy.offset)

    def _memory(self, path: Path) -> mmap.mmap:
        if path not in self._mapped:
            with path.open("rb") as file:
                # Never written to; but only of memory that might be Python tells the address.
                access = mmap.PROT_READ | mmap.PROT_WRITE
                self._mapped[path] = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=access)
        return self._mapped[path]


def _mm_images(directory: Path) -> list[tuple[int, Path]]:
    """PID and path of those that describe the mappings of a task."""
    found = ((_MM.fullmatch(path.name), path) for path in directory.iterdir())
    return sorted((int(match[1]), path) for match, path in found if match)


def _mm_entry(path: Path) -> Any:
    from pycriu.images import pb

    try:
        (message,) = messages(path.read_bytes())
        return pb.mm_entry.FromString(message)
    except (DecodeError, ValueError) as error:
        raise ImageError(f"{path.name} is not an image of CRIU's") from error
