"""Images from one host's memory to the other's, sent while they are still being written.

The origin's :class:`Sender` sends every file of the image directory as it grows, which is at its end. Who of us
writes one says so; only for those that CRIU writes it looks again and again. The destination's :class:`Receiver`
writes what arrives and in the end compares it with the manifest.

The image directory may have levels (:mod:`migrate.memory.rounds`): directories ``level-1``, ``level-2``, … whose
files are named ``level-1/pages-1.img`` on the wire. The receiver nests them in the end, so that each level
is the directory ``parent`` of the next one, and the last is that of the images.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from migrate import limits, threads
from migrate.errors import MAKE_ROOM, ImageError
from migrate.files.growth import Growth
from migrate.link.payloads import Piece
from migrate.pb.manifest_pb2 import Manifest
from migrate.watch import nothing

MANIFEST_VERSION = 1
#: How often the directory is looked at while CRIU writes.
INTERVAL_S = 0.002
#: CRIU's own notes, of no use to a restore.
_NOT_IMAGES = re.compile(r".*\.log|stats-.*|\..*")
_SLOW = "Look how much the network between the hosts carries, and try again."
_NAME = re.compile(r"(level-[1-9]/)?[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
#: Where CRIU's restore looks for pages that an image does not have (criu/include/image.h CR_PARENT_LINK).
PARENT = "parent"


class Sender:
    """Sends the files of *directory* in a thread of its own, from :meth:`start_ahead` or :meth:`start` to
    :meth:`finish`.

    :param send: sends one chunk; waits while the link is busy, raises MigrateError when it is lost.
    :param heed: called again and again by the main thread while it waits; what it raises ends the wait.
    """

    def __init__(
        self, directory: Path, send: Callable[[Piece], None], heed: Callable[[], None] = nothing
    ) -> None:
        self._directory = directory
        self._growth, self._heed = Growth(directory, send), heed
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        #: Files that somebody has said have grown, in this order; all of which that was ever said.
        self._grown: dict[str, None] = {}
        self._told: set[str] = set()
        self._sending = self._looking = self._finishing = False
        self._thread = threading.Thread(target=self._follow, name="image-sender", daemon=True)

    @property
    def sent_bytes(self) -> int:
        """How much of all files has been sent."""
        return self._growth.sent_bytes

    def grew(self, name: str) -> None:
        """Say that we have written to the end of a file, or made it. Does not wait. From any thread.

        :param name: in the directory, or in a level: ``level-1/pages-1.img``. All writes to it are told here.
        """
        with self._changed:
            self._grown[name] = None
            self._told.add(name)
            self._changed.notify_all()

    def start_ahead(self) -> None:
        """Begin to send what :meth:`grew`; others may still be thrown away and written anew."""
        threads.start(self._thread)

    def start(self) -> None:
        """Begin to send everything; CRIU writes now, and says nothing to us."""
        with self._changed:
            self._looking = True
            self._changed.notify_all()
        if self._thread.ident is None:
            threads.start(self._thread)

    def drain(self, timeout_s: float) -> None:
        """Wait until all of what :meth:`grew` has been handed to *send*.

        :raises MigrateError: sending failed, or takes longer.
        """
        with self._changed:
            done = self._changed.wait_for(
                lambda: self._error or not (self._grown or self._sending), timeout_s
            )
        self.check()
        if not done:
            raise ImageError("the images could not be sent in time", hint=_SLOW)

    def finish(self, migration_id: str) -> Manifest:
        """Send the rest, now that every image is complete, and say what was sent.

        :raises MigrateError: sending failed, now or before.
        :raises ImageError: an image could not be read.
        """
        self.abandon()  # between two chunks: what it has not sent is sent below
        while self._thread.is_alive():
            self._heed()
            self._thread.join(limits.HEED_S)
        self.check()
        self._looking = self._finishing = True
        self._pass([*self._told])
        return Manifest(
            version=MANIFEST_VERSION,
            migration_id=migration_id,
            files=self._growth.sent(),
        )

    def check(self) -> None:
        """Raise what has kept it from sending, if something has."""
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Send no more, and do not wait for the chunk that is being sent."""
        with self._changed:
            self._stop.set()
            self._changed.notify_all()

    def stop(self) -> None:
        """Stop following; images stay as they are. Waits for the chunk that is being sent."""
        self.abandon()
        if self._thread.ident is not None:
            self._thread.join()

    def _follow(self) -> None:
        try:
            while not self._stop.is_set():
                self._pass(self._next())
        except BaseException as error:  # told by finish(), in the thread that can act on it
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _next(self) -> list[str]:
        """Wait for what has grown; while CRIU writes, not for long."""
        with self._changed:
            self._sending = False
            self._changed.notify_all()
            if self._looking:
                self._changed.wait_for(lambda: self._grown or self._stop.is_set(), INTERVAL_S)
            else:
                self._changed.wait_for(lambda: self._grown or self._stop.is_set() or self._looking)
            found, self._sending = list(self._grown), True
            self._grown.clear()
        return found

    def _pass(self, grown: list[str]) -> None:
        try:
            for name in grown:
                self._growth.send(name, self._stopped)
            if self._looking:
                self._look()
        except OSError as error:
            raise ImageError(f"cannot read the images: {error.strerror}") from error

    def _look(self) -> None:
        """Send what CRIU has written meanwhile."""
        with os.scandir(self._directory) as entries:
            for entry in entries:
                ours = entry.name in self._told or _NOT_IMAGES.fullmatch(entry.name)
                if not ours and entry.is_file(follow_symlinks=False):
                    self._growth.send(entry.name, self._stopped)

    def _stopped(self) -> bool:
        return self._stop.is_set() and not self._finishing


def is_ahead(name: str) -> bool:
    """Whether the image *name* is of a level: it is sent before the freeze."""
    return name.startswith("level-")


class Receiver:
    """Writes chunks to *directory*. Names and offsets come from the network and are checked."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, tuple[int, Any]] = {}

    def take(self, chunk: Piece) -> None:
        """Write one chunk.

        :raises ImageError: a bad name, a gap, or no space; the directory is to be thrown away.
        """
        if not _NAME.fullmatch(chunk.name):
            raise self._error(f"not an image's name: {chunk.name[:100]!r}")
        offset, digest = self._files.get(chunk.name) or (0, hashlib.sha256())
        if chunk.offset != offset:
            raise self._error(f"{chunk.name}: a piece at {chunk.offset}, expected at {offset}")
        path = self._directory / chunk.name
        try:
            if path.parent != self._directory:
                path.parent.mkdir(mode=0o700, exist_ok=True)
            with path.open("ab", buffering=0) as file:
                left = memoryview(chunk.data)
                while left:
                    left = left[file.write(left) :]
        except OSError as error:
            hint = MAKE_ROOM if error.errno == errno.ENOSPC else ""
            raise self._error(f"cannot write {chunk.name}: {error.strerror}", hint) from error
        digest.update(chunk.data)
        self._files[chunk.name] = (offset + len(chunk.data), digest)

    def verify(self, manifest: Manifest) -> None:
        """Compare what arrived with *manifest*; nest the levels, ready for CRIU.

        :raises ImageError: a file is missing, cut, changed or too much, or a level is.
        """
        if manifest.version != MANIFEST_VERSION:
            text = (
                f"the manifest has version {manifest.version}, this migrate reads version {MANIFEST_VERSION}"
            )
            raise self._error(text, "Use the same migrate on both hosts.")
        expected = {file.name: (file.size_bytes, file.sha256) for file in manifest.files}
        found = {name: (size, digest.digest()) for name, (size, digest) in self._files.items()}
        if expected != found:
            names = sorted(name for name in expected | found if expected.get(name) != found.get(name))
            raise self._error(
                f"these images did not arrive as they were sent: {', '.join(names)}",
                "Try again. If it happens again, suspect the memory of either host.",
            )
        try:
            self._nest(len({name.partition("/")[0] for name in found if "/" in name}))
        except OSError as error:
            raise self._error(f"cannot arrange the images: {error.strerror}") from error

    def _nest(self, levels: int) -> None:
        """Make level 1 the parent of level 2, …, and the last level the parent of the images."""
        for number in range(1, levels + 1):
            child = self._directory / f"level-{number + 1}" if number < levels else self._directory
            (self._directory / f"level-{number}").rename(child / PARENT)

    @staticmethod
    def _error(text: str, hint: str = "") -> ImageError:
        return ImageError(text, hint=hint)
