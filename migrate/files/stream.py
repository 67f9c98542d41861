"""A file that is sent while it is made, and read on the other host while it comes: it is whole on neither.

It goes in pieces as a copied file does, under a name that is no path.
"""

from __future__ import annotations

import io
import os
import select
import threading
import time
from collections.abc import Callable

from migrate import limits, threads
from migrate.errors import ImageError, MigrateError
from migrate.files import layer
from migrate.link.payloads import CHUNK_BYTES, Piece

#: The image of a container, as `podman save` writes it; what a container has written to its own files.
IMAGE, LAYER = "container:image", "container:layer"
_AGAIN = "Install the same version on both hosts, and try again."
_SLOW = "Look there at the disks, and at the load."


class Sending(io.RawIOBase):
    """The origin's part: a file to write to.

    :param send: sends one piece; waits while the link is busy, raises MigrateError when it is lost.
    """

    def __init__(self, name: str, send: Callable[[Piece], None]) -> None:
        self._name, self._send = name, send
        self._offset, self._waiting = 0, bytearray()

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        """See :class:`io.RawIOBase`; all of it is taken."""
        self._waiting += data
        while len(self._waiting) > CHUNK_BYTES:
            self._give(CHUNK_BYTES)
        return len(data)

    def end(self) -> None:
        """Send what is left: it is whole."""
        self._give(len(self._waiting), last=True)

    def _give(self, size: int, *, last: bool = False) -> None:
        data = bytes(self._waiting[:size])
        del self._waiting[:size]
        self._send(Piece(name=self._name, offset=self._offset, data=data, last=last))
        self._offset += size


class Feed:
    """The destination's part: a pipe, into which goes what comes.

    :param heed: called again and again while whoever reads takes nothing; what it raises ends the wait.
    :ivar reader: the end to read from; whoever reads closes it.
    """

    def __init__(self, heed: Callable[[], None]) -> None:
        self._heed, self._offset = heed, 0
        self.reader, self._writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._writer, False)

    def take(self, piece: Piece) -> None:
        """Put one piece into it.

        :raises ImageError: it does not follow the one before, or nothing is taken any more.
        :raises BrokenPipeError: nobody reads.
        """
        if piece.offset != self._offset:
            text = f"{piece.name}: a piece at {piece.offset}, expected at {self._offset}"
            raise ImageError(text, hint=_AGAIN)
        left, deadline = memoryview(piece.data), time.monotonic() + limits.FEED_S
        while left:
            try:
                left = left[os.write(self._writer, left) :]
                deadline = time.monotonic() + limits.FEED_S
            except BlockingIOError:
                self._wait(piece.name, deadline)
        self._offset += len(piece.data)

    def _wait(self, name: str, deadline: float) -> None:
        poll = select.poll()
        poll.register(self._writer, select.POLLOUT)
        while not poll.poll(1000 * limits.HEED_S):
            self._heed()
            if time.monotonic() > deadline:
                raise ImageError(f"{name}: nothing of it is taken there any more", hint=_SLOW)

    def close(self) -> None:
        """There is no more. May be called twice."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1


class Unpacking:
    """What a container has written, unpacked to the directory *root* as it comes.

    :param heed: as of :class:`Feed`.
    """

    def __init__(self, root: str, heed: Callable[[], None]) -> None:
        self._root, self._heed = root, heed
        self._feed = Feed(heed)
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._read, name="unpacking", daemon=True)
        threads.start(self._thread)

    def take(self, piece: Piece) -> None:
        """Take one piece; with the last one all of it is in its place.

        :raises MigrateError: it is not; part of it may be.
        """
        try:
            self._feed.take(piece)
        except BrokenPipeError:
            self._end()
            text = "what the container has written goes on behind its end"
            raise ImageError(text, hint=_AGAIN) from None
        if piece.last:
            self._end()

    def close(self) -> None:
        """Stop. Nothing of it is read any more when this returns."""
        self._feed.close()
        self._thread.join(limits.FEED_S)

    def _end(self) -> None:
        self._feed.close()
        deadline = time.monotonic() + limits.FEED_S
        while self._thread.is_alive():
            self._heed()
            self._thread.join(limits.HEED_S)
            if time.monotonic() > deadline:
                raise MigrateError("what the container has written could not be unpacked in time", hint=_SLOW)
        if self._errors:
            raise self._errors[0]

    def _read(self) -> None:
        try:
            with open(self._feed.reader, "rb") as source:  # noqa: PTH123
                layer.unpack(source, self._root)
                while source.read(CHUNK_BYTES):
                    pass  # what tar fills its last block with
        except BaseException as error:  # told by take(), in the thread that can act on it
            self._errors.append(error)
