"""The way ``ahead``: memory is sent in rounds while the tree runs, and at the freeze only what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from migrate.memory.page_server import PageServer
from migrate.memory.rounds import Ahead


class SentAhead:
    """See :class:`migrate.memory.Memory`."""

    def __init__(
        self,
        directory: Path,
        tasks: Callable[[], Iterable[int]],
        grew: Callable[[str], None],
        deadline: float,
    ) -> None:
        self._directory, self._grew = directory, grew
        self._ahead = Ahead(directory, tasks, grew, deadline=deadline)

    def before_freeze(self, sent: Callable[[], None]) -> None:
        """See :class:`migrate.memory.Memory`."""
        self._ahead.run(sent)

    def at_dump(self) -> PageServer:
        """See :class:`migrate.memory.Memory`."""
        return PageServer(self._directory, self._ahead, self._grew)
