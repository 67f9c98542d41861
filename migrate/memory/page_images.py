"""The pagemap and pages images of one dump, written as its pages come: only what has not been sent ahead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from migrate.memory.pagemap import PAGE_BYTES, PE_PARENT, Pagemap, Run, add
from migrate.memory.rounds import Ahead
from migrate.memory.sources import Key
from tcpcp.kernel.writing import write_all

#: Numbers of pages images that CRIU itself will not use (criu/image.c up_page_ids_base()).
_FIRST_NUMBER = 0x10001


class PageImages:
    """Those of one dump, one after the other. Every method raises OSError where it cannot write.

    :param directory: where they go.
    :param ahead: what has been sent ahead; its rounds are over.
    :param grew: told the name of each, after it was made or something was written to its end.
    :ivar written_bytes: memory that had changed.
    """

    def __init__(self, directory: Path, ahead: Ahead, grew: Callable[[str], None]) -> None:
        self._directory, self._ahead, self._grew = directory, ahead, grew
        self._image: _Image | None = None
        self._images = 0
        self.written_bytes = 0

    @property
    def is_open(self) -> bool:
        """Whether there is one that pages can go to."""
        return self._image is not None

    def open(self, key: Key) -> None:
        """Begin those of one task or shared memory."""
        number = _FIRST_NUMBER + self._images
        self._images += 1
        file = (self._directory / _pages(number)).open("xb", buffering=0)
        self._image = _Image(key, number, file)
        self._grew(self._image.name)

    def end(self) -> None:
        """They are complete, if any was begun."""
        image, self._image = self._image, None
        if image is None:
            return
        image.file.close()
        (self._directory / image.key.image).write_bytes(Pagemap(image.number, image.runs).to_bytes())
        self._grew(image.key.image)

    def take(self, start: int, flags: int, pages: memoryview, address: int) -> None:
        """Write what has changed of *pages*; for the rest, point to the parent.

        :param start: their address in the process; :param flags: of the run that they are of.
        :param address: where *pages* are in this process.
        """
        image, size = self._image, len(pages)
        if image is None:
            return
        done, before = start, self.written_bytes
        for begin, end in self._ahead.changed(image.key, start, address, size):
            add(image.runs, Run(done, (begin - done) // PAGE_BYTES, PE_PARENT))
            add(image.runs, Run(begin, (end - begin) // PAGE_BYTES, flags))
            write_all(image.file.fileno(), pages[begin - start : end - start])
            self.written_bytes += end - begin
            done = end
        add(image.runs, Run(done, (start + size - done) // PAGE_BYTES, PE_PARENT))
        if self.written_bytes > before:
            self._grew(image.name)


@dataclass(slots=True)
class _Image:
    """The images of one task or shared memory, being written."""

    key: Key
    number: int
    file: FileIO
    runs: list[Run] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the image with the pages."""
        return _pages(self.number)


def _pages(number: int) -> str:
    return f"pages-{number}.img"
