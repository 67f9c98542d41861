"""One transport and a host that it reaches, for the checks of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from migrate.journal.reach import Reach
from migrate.testing.leftovers import Before
from migrate.transport import AgentStream, Transport

MUCH_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """One transport, and a host that it reaches.

    :ivar program: makes a shell script of that text on the host, and returns its path.
    :ivar nowhere: a way on which nobody answers.
    :ivar ends: the addresses that are expected of the connection.
    """

    transport: Transport
    reach: Reach
    program: Callable[[str], str]
    nowhere: Reach
    ends: tuple[str, str] = ("", "")

    @contextmanager
    def opened(self, agent: str) -> Iterator[AgentStream]:
        """A stream to *agent*, closed in the end, with nothing left of it."""
        before = Before()
        stream = self.transport.open(dataclasses.replace(self.reach, agent=agent))
        try:
            yield stream
        finally:
            stream.close()
            stream.close()
        before.check()


def read(stream: AgentStream, most: int) -> bytes:
    """So much, or what there is before the end."""
    found = b""
    while len(found) < most and (data := stream.read(min(1 << 18, most - len(found)))):
        found += data
    return found


def until_end(stream: AgentStream) -> bytes:
    """What is read until the end; one that comes as an error is an end, too."""
    try:
        return read(stream, MUCH_BYTES)
    except OSError:
        return b""
