"""What is below a directory that the process may rename or remove while it is looked at."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


def walk(top: str) -> Iterator[tuple[str, list[str], list[str], int]]:
    """As os.fwalk(), which passes over what goes meanwhile, but for *top* itself: nothing, if that has gone."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        yield from os.fwalk(top)
