"""What is sent along with a container while it runs, and put into its place as it comes: its image, its files."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from migrate import limits
from migrate.errors import MigrateError
from migrate.files import stream
from migrate.files.written import Written
from migrate.link.link import Link
from migrate.link.payloads import CHUNK_BYTES, Piece
from migrate.pb import session_pb2 as pb
from migrate.processes import podman
from migrate.processes.podman import Podman
from migrate.watch import first_readable


@dataclass(frozen=True, slots=True)
class Way:
    """To the destination.

    :ivar timeout_s: how long a piece may wait to be sent.
    """

    link: Link
    timeout_s: float

    def give(self, piece: Piece) -> None:
        """Send one piece; waits while the link is busy. :raises MigrateError: it is lost."""
        self.link.send(piece, kind="copy", timeout_s=self.timeout_s)

    def arrived(self, within_s: float) -> None:
        """Make sure that all is in its place there: the destination takes one thing after the other.

        :raises MigrateError: it is not, or not within *within_s*.
        """
        self.link.send(pb.Compare())
        self.link.expect(pb.Compared, timeout_s=limits.ANSWER_S + within_s)


def image(container: Podman, way: Way, heed: Callable[[], None]) -> None:
    """Have podman write the image of *container*, and send that; it is there when this returns.

    :param heed: called again and again while podman is waited for; what it raises ends the wait.
    :raises MigrateError: podman cannot write it, or load it there.
    """
    there = stream.Sending(stream.IMAGE, way.give)
    with tempfile.TemporaryFile() as said:
        saving = podman.saving(container.image, container.image_name, said.fileno())
        assert saving.stdout is not None
        try:
            source = saving.stdout.fileno()
            while data := _read(source, heed):
                there.write(data)
            with contextlib.suppress(subprocess.TimeoutExpired):
                saving.wait(limits.PODMAN_S)
        finally:
            saving.kill()
            saving.stdout.close()
            saving.wait()
        if saving.returncode:
            said.seek(0)
            why = said.read()[-1000:].decode(errors="replace").strip()
            hint = f"Look at it: podman save {container.image_name} >/dev/null"
            raise MigrateError(f"podman cannot write the image {container.image_name}: {why}", hint=hint)
    there.end()
    way.arrived(limits.IMAGE_LOADED_S)


def files(its: Written, mapped: Callable[[], Collection[str]], way: Way) -> None:
    """Send what a container has written, while it runs: all of it, and then what was written meanwhile.

    :param mapped: says which files, by their paths on this host, have times that do not tell of changes.
    :raises MigrateError: it cannot be read, or written there.
    """
    for _ in range(2):
        there = stream.Sending(stream.LAYER, way.give)
        its.pack(there, mapped(), running=True)
        there.end()
    way.arrived(limits.FEED_S)


def _read(source: int, heed: Callable[[], None]) -> bytes:
    """What podman has written meanwhile; b"" at the end."""
    if first_readable(source, source, time.monotonic() + limits.IMAGE_READ_S, heed) != source:
        raise MigrateError("podman writes nothing of the image", hint="Look at its storage, and at the load.")
    return os.read(source, CHUNK_BYTES)
