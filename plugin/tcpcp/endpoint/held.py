"""What is known of a socket that this process holds, and who shares its isolation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tcpcp.endpoint import isolation
from tcpcp.endpoint.flow_table import FlowTable
from tcpcp.endpoint.isolation import Flow
from tcpcp.endpoint.reader import Left
from tcpcp.endpoint.waking import Known
from tcpcp.record import seq


@dataclass(slots=True)
class Times:
    """By time.monotonic().

    :ivar since: when it was got or created. :ivar renewed: when it was isolated, or its isolation renewed.
    """

    since: float = field(default_factory=time.monotonic)
    renewed: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class Holding:
    """One socket in repair mode.

    :ivar options: its own, as in an ICI, of which some are put off while it is held; None: none are.
    :ivar before: its connection was isolated here before, for a socket that nobody has any more.
    :ivar lives: it had a connection when it was got or created.
    :ivar known: of its connection, to wake it by; None: it had none.
    :ivar flow: None where nothing has to be let through: the caller isolates, or there is no connection.
    :ivar created: not got: the filter by which this host's connection tracking, which has not seen its connection
        begin, gets to know it; None: nobody needs to tell it, or can.
    :ivar last: what its peer has acknowledged last, to be fed to it again (`patience`); b"": nothing is.
    :ivar left: what its queues held when it was got; None: it was not.
    :ivar going: a thread is about to let it run or to end it.
    """

    cookie: int
    flow: Flow | None = None
    options: Mapping[str, int] | None = None
    lives: bool = False
    known: Known | None = None
    before: bool = False
    created: FlowTable | None = None
    left: Left | None = None
    last: bytes = b""
    going: bool = False
    times: Times = field(default_factory=Times)
    table: FlowTable | None = None

    @property
    def write_seq(self) -> int | None:
        """That of the kernel when it was got, our FIN counted; None: it was not got, or had no connection."""
        if self.left is None or self.known is None:
            return None
        return seq.add(self.known.acknowledged, self.left.outgoing)

    @property
    def held_s(self) -> float:
        """For how long, in seconds."""
        return time.monotonic() - self.times.since


class Shares:
    """Whose the isolation of a connection is, by the filter and the key in it. The caller has a lock.

    There may be several: whose socket is gone, or going, and those who are at work to make another, of whom the
    kernel lets one connect.
    """

    def __init__(self) -> None:
        self._having: dict[tuple[FlowTable, bytes], list[Holding]] = {}

    def take(self, one: Holding, flow: Flow, filter_: FlowTable, *, there: bool) -> None:
        """Let *one* share *flow*. :param there: it is isolated already."""
        one.flow, one.table = flow, filter_
        having = self._having.setdefault((filter_, flow.key), [])
        if (
            having and not there
        ):  # whose socket was closed, and whose isolation has run out since, has none of it
            over = time.monotonic() - isolation.TIMEOUT_S
            having[:] = [other for other in having if other.times.renewed > over]
        one.before = there and all(other.before for other in having)
        having.append(one)

    def others(self, one: Holding) -> Sequence[Holding]:
        """Who has the connection of *one* beside it."""
        if one.table is None or one.flow is None:
            return ()
        having = self._having.get((one.table, one.flow.key), ())
        if len(having) == 1 and having[0] is one:  # nearly always
            return ()
        return [other for other in having if other is not one]

    def lose(self, one: Holding) -> bool:
        """*one* has its connection no longer; whether nobody has it then."""
        others = self.others(one)
        if one.table is not None and one.flow is not None:
            if others:
                self._having[one.table, one.flow.key] = list(others)
            else:
                self._having.pop((one.table, one.flow.key), None)
        return not others

    def clear(self) -> None:
        """In a child after fork(): all is the parent's."""
        self._having.clear()


def some(names: Sequence[str]) -> str:
    """The first of *names*, and how many more there are."""
    more = f" and of {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
