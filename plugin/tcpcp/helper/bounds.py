"""How much of the helper one user may use."""

from __future__ import annotations

from typing import NamedTuple


class Bounds(NamedTuple):
    """How much one user may have at a time.

    :ivar connections: to the helper.
    :ivar held: sockets got or created, and not finished with, or released within the last minute.
    :ivar image_bytes: of the ICIs of one request.
    """

    connections: int = 32
    held: int = 4096
    image_bytes: int = 64 << 20
