"""The connections of a process that goes on where it was: they get what was caught for them, and their peers hear.

The filter has dropped what the peers sent meanwhile. Left to themselves they send it again when their timers say
so, and these have been doubled again and again: the silence would last for about as long again as the gap did. So
the way back is that of the destination (:class:`migrate.gap.inject.Inlet`): what was caught is given to the
stack while the filter still holds everything, then the filter goes, and everybody acknowledges. New
connections, whose requests were held, are given back like that as well. Connection tracking does not see what is
given in this way, and is told that there is something that it has missed.

What was caught is in the packet sockets of the driver, which its guardian has too, and in the file of what was sent
on to the destination (:mod:`migrate.gap.file`); ``--recover`` has only that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from migrate import place
from migrate.errors import MigrateError
from migrate.gap import file, packets
from migrate.gap.capture import Capture
from migrate.gap.inject import Injector, Inlet
from migrate.gap.packets import Segment
from migrate.recovery import hold
from migrate.recovery.records import Record
from migrate.switch import netlink
from tcpcp.criu import stages, tree
from tcpcp.criu.stages import endpoint
from tcpcp.endpoint.isolation import Flow
from tcpcp.errors import TcpcpError
from tcpcp.kernel import diag, netfilter, tracking
from tcpcp.record.ici import State


class WayBack:
    """That of the tree of *record*, on the origin: :meth:`fill`, :meth:`open`, :meth:`close`, in this order.

    :param capture: what still catches the packets of the gap; None where nobody has it any more.

    None of them raises: without them everything works, later.
    """

    def __init__(self, record: Record, capture: Capture | None) -> None:
        self._record, self._capture = record, capture
        self._injector: Injector | None = None
        self._inlet: Inlet | None = None
        self._here: set[bytes] = set()
        self._netlink: netfilter.Netlink | None = None

    def fill(self) -> None:
        """The addresses are here again, and the filter still holds: give what was caught."""
        kept = packets.parse_all(file.read(place.home(self._record.migration_id)))
        self.give([*kept, *self._taken()])

    def give(self, caught: Sequence[Segment]) -> None:
        """Give *caught*, as far as that needs no answer; :meth:`open` has it answered."""
        if not caught:
            return
        with _harmless():
            self._here = _own_addresses()
            entries = _sockets(self._record)
            connected = [(_flow(one), one) for one in entries if one.state != State.LISTEN and one.peer_port]
            bound = [where for one in entries if one.state == State.LISTEN for where in stages.bound(one)]
            self._introduce(flow for flow, _ in connected)
            self._injector = Injector()
            self._injector.by_device(
                {flow.local.ip: one.interface for flow, one in connected if one.interface}
            )
            inlet = Inlet(self._injector)
            inlet.only([flow for flow, _ in connected], bound)
            inlet.add(self._to_here(caught))
            inlet.fill(flow for flow, one in connected if one.state != State.ESTABLISHED)
            self._inlet = inlet

    def _introduce(self, flows: Iterable[Flow]) -> None:
        with _harmless():
            self._netlink = netfilter.Netlink()
            tracking.introduce(self._netlink, ((flow.local, flow.peer) for flow in flows))

    def open(self) -> None:
        """The filter is gone: have it all acknowledged, and give what has come since."""
        with _harmless():
            if self._inlet is not None:
                self._inlet.open()
            if self._capture is not None:
                self._capture.nothing()
            if self._inlet is not None:
                self._inlet.add(self._to_here(self._taken()))

    def close(self) -> None:
        """Nothing is in a hurry any more."""
        if self._injector is not None:
            self._injector.close()
        if self._netlink is not None:
            self._netlink.close()

    def _taken(self) -> list[Segment]:
        with _harmless():
            return self._capture.take() if self._capture is not None else []
        return []

    def _to_here(self, caught: Iterable[Segment]) -> Iterator[Segment]:
        """Those to addresses of this host: others would leave it, with a source that is not ours."""
        return (segment for segment in caught if packets.local_ip(segment) in self._here)


def late(record: Record, caught: Sequence[bytes]) -> None:
    """Packets that come when everything has been undone, for connections that live here."""
    way = WayBack(record, None)
    way.give(list(packets.parse_all(caught)))
    way.open()
    way.close()


@contextlib.contextmanager
def _harmless() -> Iterator[None]:
    with contextlib.suppress(MigrateError, TcpcpError, OSError):
        yield


def _own_addresses() -> set[bytes]:
    with netlink.route("look at this host's addresses"):
        return {one.ip.packed for one in netlink.addresses()}


def _sockets(record: Record) -> list[diag.Entry]:
    """The TCP sockets of the tree; nothing is borrowed, so that thousands take a moment."""
    pids = [pid for pid, _ in hold.frozen(record)] or tree.tasks(record.pid)
    held = {one.inode for one in tree.sockets(pids)}
    return [entry for entry in diag.tcp() if entry.inode in held]


def _flow(entry: diag.Entry) -> Flow:
    return Flow(endpoint(entry.local_ip, entry.local_port), endpoint(entry.peer_ip, entry.peer_port))
