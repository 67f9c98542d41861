"""The image of a container that is to come, which is missing here: podman loads it while it arrives."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Callable

from migrate import limits
from migrate.errors import MigrateError
from migrate.files.stream import Feed
from migrate.link.payloads import Piece
from migrate.pb.session_pb2 import Container
from migrate.processes import podman

_HINT = (
    "Look at its storage there, and at the space in /var/tmp. Or send it yourself:"
    " podman save {} | ssh THERE podman load"
)


class ImageTaken:
    """That of *container*. What was loaded stays, whatever becomes of the container.

    :param heed: called again and again while podman is waited for; what it raises ends the wait.
    :raises MigrateError: podman cannot be started.
    """

    def __init__(self, container: Container, heed: Callable[[], None]) -> None:
        self._container, self._heed = container, heed
        self._feed = Feed(heed)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._loading = podman.loading(self._feed.reader, self._said.fileno())

    def take(self, piece: Piece) -> None:
        """Take one piece; with the last one the image is here, the very one that the origin has.

        :raises MigrateError: it is not.
        """
        try:
            self._feed.take(piece)
        except BrokenPipeError:
            self._end()
            raise
        if piece.last:
            self._end()

    def close(self) -> None:
        """Podman ends, if it has not: nothing more comes. By itself it takes what it has kept meanwhile with it."""
        self._feed.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._loading.wait(limits.KILLED_S)
        self._loading.kill()
        self._loading.wait()
        self._said.close()

    def _end(self) -> None:
        self._feed.close()
        deadline = time.monotonic() + limits.IMAGE_LOADED_S
        while not self._ended():
            self._heed()
            if time.monotonic() > deadline:
                raise self._failed("it takes too long")
        if self._loading.returncode:
            self._said.seek(0)
            raise self._failed(self._said.read()[-1000:].decode(errors="replace").strip())
        image, name = self._container.image, self._container.image_name
        if not podman.named(image, name):
            raise self._failed(f"it is another one: {podman.image(name) or 'of no such name'}")

    def _ended(self) -> bool:
        try:
            self._loading.wait(limits.HEED_S)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _failed(self, why: str) -> MigrateError:
        name = self._container.image_name
        return MigrateError(f"podman could not load the image {name}: {why}", hint=_HINT.format(name))
