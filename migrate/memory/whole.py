"""The way ``none``: nothing is sent before the freeze, and CRIU writes all pages in it, as images like any others.

The process is frozen for longer, and this host needs room for its memory once, without a copy to compare with.
"""

from __future__ import annotations

from collections.abc import Callable


class Whole:
    """See :class:`migrate.memory.Memory`."""

    def before_freeze(self, sent: Callable[[], None]) -> None:
        """Nothing to do."""

    def at_dump(self) -> ByCriu:
        """See :class:`migrate.memory.Memory`."""
        return ByCriu()


class ByCriu:
    """See :class:`migrate.memory.Pages`: CRIU's images are complete when it says so."""

    descriptor = None

    def start(self) -> None:
        """Nothing to do."""

    def finish(self, timeout_s: float, heed: Callable[[], None]) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""
