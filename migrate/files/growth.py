"""What of each file of a directory has been sent: more of it is sent from there, and all is hashed on its way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from migrate.errors import ImageError
from migrate.link.payloads import CHUNK_BYTES, Piece
from migrate.pb.manifest_pb2 import ImageFile


class Growth:
    """That of the files in *directory*, which grow at their ends only.

    :param send: sends one chunk.
    :ivar sent_bytes: of all files.
    """

    def __init__(self, directory: Path, send: Callable[[Piece], None]) -> None:
        self._directory, self._send = directory, send
        self._files: dict[str, tuple[int, Any]] = {}
        self.sent_bytes = 0

    def send(self, name: str, stopped: Callable[[], bool]) -> None:
        """Send what the file has more than before.

        :param stopped: asked before each chunk whether there should be another one.
        :raises ImageError: it has become shorter. :raises OSError: it cannot be read.
        """
        path, known = self._directory / name, self._files.get(name)
        offset, digest = known or (0, hashlib.sha256())
        if known:
            size = path.stat().st_size
            if size < offset:
                raise ImageError(f"{name} was written anew after it had been sent")
            if size == offset:
                return
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            data = file.read(CHUNK_BYTES)
            while (data or known is None) and not stopped():
                self._send(Piece(name=name, offset=offset, data=data))
                digest.update(data)
                offset += len(data)
                self.sent_bytes += len(data)
                known = self._files[name] = (offset, digest)
                data = file.read(CHUNK_BYTES)

    def sent(self) -> list[ImageFile]:
        """What has been sent of each, for the manifest."""
        return [
            ImageFile(name=name, size_bytes=size, sha256=digest.digest())
            for name, (size, digest) in sorted(self._files.items())
        ]
