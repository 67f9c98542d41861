"""How much of a file is copied in the freeze: what it had when it was dumped. Others may write it, and run on."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from migrate.criu import file_sizes
from migrate.errors import MigrateError
from migrate.pb.session_pb2 import File


class AsDumped:
    """The sizes of files.

    :param used: what the tree uses, with the sizes of just before the dump.
    :param images: CRIU's.
    """

    def __init__(self, used: Iterable[File], images: Path) -> None:
        self._before = {one.path: one.size_bytes for one in used if one.regular}
        self._images = images

    @cached_property
    def _recorded(self) -> dict[str, set[int]]:
        """Looked for only when a file has changed meanwhile: there may be thousands of entries."""
        return file_sizes.of(self._images)

    def size(self, path: str) -> int | None:
        """How many bytes of *path* it has to have there; None: as many as there are.

        :raises MigrateError: CRIU wants several, or it is gone. :raises ProtocolError: the images are not CRIU's.
        """
        if path not in self._before:
            return None
        try:
            now = os.stat(path).st_size  # noqa: PTH116
        except OSError as error:
            raise MigrateError(f"cannot read {path}: {error.strerror}") from error
        if now == self._before[path]:
            return now
        sizes = self._recorded.get(path, set())
        if len(sizes) > 1:
            raise MigrateError(
                f"{path} has grown while the process was dumped, which has it open several times",
                hint="Try again when less is written to it.",
            )
        return next(iter(sizes), None)
