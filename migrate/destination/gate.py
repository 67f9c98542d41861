"""What stands between the network and the tree on the destination: filter, addresses, the packets of the gap."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Collection, Generator, Sequence

from migrate import limits, problems, switch
from migrate.errors import CriuError, SwitchError
from migrate.gap.capture import Capture
from migrate.gap.inject import Injector, Inlet
from migrate.gap.lease import Lease
from migrate.journal.journal import Journal
from migrate.pb import session_pb2 as pb
from migrate.recovery import entries
from migrate.switch import netlink as switch_netlink
from tcpcp.criu import stages
from tcpcp.endpoint.isolation import Flow, Isolation
from tcpcp.kernel import netfilter, tracking
from tcpcp.record.ici import Endpoint, Ici, State

#: In one message, beside everything else.
MOST_GIVEN_BACK_BYTES = 8 << 20


class Gate:
    """Made ready: nothing is held yet, and nobody is answered.

    :param own_network: the tree has one, with the same interfaces as at the origin.
    :raises MigrateError, TcpcpError, OSError: the journal says what is to be undone.
    :ivar lease: of the filter. :ivar switch: of the service addresses. :ivar inlet: takes packets for the tree.
    :ivar netlink: to netfilter.
    """

    def __init__(self, request: pb.Prepare, journal: Journal, *, own_network: bool = False) -> None:
        addresses = [
            switch.Address(one.address, one.prefix_length, one.device if own_network else "", one.stays)
            for one in request.addresses
        ]
        self.switch = switch.make(request.switch_kind, "destination", journal.migration_id, addresses)
        self.switch.choose()
        self._moving = {one.ip for one in addresses}
        self._isolation = Isolation(
            journal.migration_id, timeout_s=request.timeout_s + int(limits.FILTER_MARGIN_S)
        )
        journal.did(entries.Isolation(journal.migration_id))
        self._isolation.prepare()
        self.lease = Lease(self._isolation)
        stages.prepare()
        # Closing them takes long, so they end with the agent, which does one migration.
        self.netlink = netfilter.Netlink()
        tracking.load(self.netlink)
        self._capture = Capture(ipaddress.ip_address(one.ip) for one in addresses)
        self._injector = Injector()
        self.inlet = Inlet(self._injector)

    def hold(self, icis: Sequence[Ici], listening: Collection[Endpoint], journal: Journal) -> None:
        """No packet may meet a half-built socket, or none. The addresses are here now, mute."""
        self._injector.by_device({i.local.ip: socket.if_nametoindex(i.device) for i in icis if i.device})
        self.inlet.only([_flow(ici) for ici in icis], listening)
        # Nobody else is at these ends, so a few elements do for all connections.
        self.lease.hold((), {*listening, *(ici.local for ici in icis)})
        switch.tell(self.switch, map(_flow, icis))
        self.switch.require_free()
        journal.did(entries.Switch(self.switch.details()))
        self.switch.prepare()

    def marked(self, icis: list[Ici]) -> list[Ici]:
        """With the options that their sockets need here beside those they had at the origin."""
        return self.switch.marked(icis) if isinstance(self.switch, switch.ByConnection) else icis

    @contextlib.contextmanager
    def needed(self, icis: Sequence[Ici]) -> Generator[None, None, None]:
        """Meanwhile something is done that needs the addresses here, and fails without them in words of its own.

        :raises SwitchError: it has failed, and one is not here any more.
        """
        try:
            yield
        except CriuError as error:
            with switch_netlink.route("look at this host's addresses"):
                wanted = {str(ici.local.ip) for ici in icis} | self._moving
                gone = wanted - switch_netlink.here(wanted)
            if not gone:
                raise
            text = f"{', '.join(sorted(gone))} was removed from this host while CRIU built the process"
            hint = "Look for who removed it (ip monitor address), and try again."
            raise SwitchError(text, hint=hint, details=problems.of(error).details) from error

    def keep_everything(self) -> None:
        """Keep what arrives from now on."""
        self._capture.everything()

    def open(self, icis: Sequence[Ici]) -> None:
        """Have this host's firewall know the connections, give them what was kept for them, and let packets in."""
        tracking.introduce(self.netlink, ((ici.local, ici.peer) for ici in icis))
        self.inlet.add(self._capture.take())
        self.inlet.fill(_flow(ici) for ici in icis if ici.state is not State.ESTABLISHED)
        self._isolation.release()
        self.inlet.open()
        self._capture.nothing()
        self.inlet.add(self._capture.take())

    def give_back(self) -> list[bytes]:
        """What was kept for connections that do not live here after all."""
        return [one.packet for one in self._capture.take(MOST_GIVEN_BACK_BYTES)]


def _flow(ici: Ici) -> Flow:
    return Flow(ici.local, ici.peer)
