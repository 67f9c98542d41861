"""Images from one host's memory to the other's, sent while CRIU is still writing them.

The origin's :class:`Sender` follows every file of the image directory as it grows (CRIU only appends); the
destination's :class:`Receiver` writes what arrives and in the end compares it with the manifest.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from migrate.errors import ImageError
from migrate.pb.manifest_pb2 import ImageFile, Manifest
from migrate.pb.session_pb2 import FileChunk
from migrate.wire import CHUNK_BYTES

MANIFEST_VERSION = 1
#: How often the directory is looked at while CRIU writes.
INTERVAL_S = 0.002
#: CRIU's own notes, of no use to a restore.
_NOT_IMAGES = re.compile(r".*\.log|stats-.*|\..*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class Sender:
    """Follows *directory* in a thread of its own from :meth:`start` to :meth:`finish`.

    :param send: sends one chunk; waits while the link is busy, raises MigrateError when it is lost.
    """

    def __init__(self, directory: Path, send: Callable[[FileChunk], None]) -> None:
        self._directory = directory
        self._send = send
        self._files: dict[str, tuple[int, Any]] = {}
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, name="image-sender", daemon=True)
        self.sent_bytes = 0

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def finish(self, migration_id: str) -> Manifest:
        """Send the rest, now that every image is complete, and say what was sent.

        :raises MigrateError: sending failed, now or before.
        :raises ImageError: an image could not be read.
        """
        self.stop()
        if self._error is not None:
            raise self._error
        self._pass()
        return Manifest(
            version=MANIFEST_VERSION,
            migration_id=migration_id,
            files=[
                ImageFile(name=name, size_bytes=size, sha256=digest.digest())
                for name, (size, digest) in sorted(self._files.items())
            ],
        )

    def stop(self) -> None:
        """Stop following; images stay as they are."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _follow(self) -> None:
        try:
            while not self._stop.wait(INTERVAL_S):
                self._pass()
        except BaseException as error:  # told by finish(), in the thread that can act on it
            self._error = error

    def _pass(self) -> None:
        try:
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    if entry.is_file(follow_symlinks=False) and not _NOT_IMAGES.fullmatch(entry.name):
                        self._send_growth(entry)
        except OSError as error:
            raise ImageError(f"cannot read the images: {error.strerror}", phase="stream") from error

    def _send_growth(self, entry: os.DirEntry[str]) -> None:
        known = self._files.get(entry.name)
        offset, digest = known or (0, hashlib.sha256())
        if known and entry.stat().st_size == offset:
            return
        with Path(entry.path).open("rb", buffering=0) as file:
            file.seek(offset)
            data = file.read(CHUNK_BYTES)
            while data or known is None:
                self._send(FileChunk(name=entry.name, offset=offset, data=data))
                digest.update(data)
                offset += len(data)
                self.sent_bytes += len(data)
                known = self._files[entry.name] = (offset, digest)
                data = file.read(CHUNK_BYTES)


class Receiver:
    """Writes chunks to *directory*. Names and offsets come from the network and are checked."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, tuple[int, Any]] = {}

    def take(self, chunk: FileChunk) -> None:
        """Write one chunk.

        :raises ImageError: a bad name, a gap, or no space; the directory is to be thrown away.
        """
        if not _NAME.fullmatch(chunk.name):
            raise self._error(f"not an image's name: {chunk.name[:100]!r}")
        offset, digest = self._files.get(chunk.name) or (0, hashlib.sha256())
        if chunk.offset != offset:
            raise self._error(f"{chunk.name}: a piece at {chunk.offset}, expected at {offset}")
        try:
            with (self._directory / chunk.name).open("ab", buffering=0) as file:
                left = memoryview(chunk.data)
                while left:
                    left = left[file.write(left) :]
        except OSError as error:
            raise self._error(f"cannot write {chunk.name}: {error.strerror}") from error
        digest.update(chunk.data)
        self._files[chunk.name] = (offset + len(chunk.data), digest)

    def verify(self, manifest: Manifest) -> None:
        """Compare what arrived with *manifest*.

        :raises ImageError: a file is missing, cut, changed or too much.
        """
        if manifest.version != MANIFEST_VERSION:
            raise self._error(f"manifest of version {manifest.version}, expected {MANIFEST_VERSION}")
        expected = {file.name: (file.size_bytes, file.sha256) for file in manifest.files}
        found = {name: (size, digest.digest()) for name, (size, digest) in self._files.items()}
        if expected != found:
            names = sorted(name for name in expected | found if expected.get(name) != found.get(name))
            raise self._error(f"these images did not arrive as they were sent: {', '.join(names)}")

    @staticmethod
    def _error(text: str) -> ImageError:
        return ImageError(text, phase="stream", role="destination")
