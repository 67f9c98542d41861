"""Writes all of something: write(2) may write less than it is given."""

from __future__ import annotations

import os


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Write *data* to a descriptor that blocks. :raises OSError: a part of it may have been written."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
