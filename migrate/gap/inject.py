"""Packets that were caught elsewhere, or while they could not be taken, are given to this host's own stack.

They arrive by the loopback interface with the header they came with, so nothing has to be set up or removed,
the reverse-path filter does not see them, and the host's firewall takes them for its own; a TUN device would
have none of this. How they get there:

- IPv4: a raw socket. The packet's route is known when it arrives, so no reverse-path filter looks at it.
- IPv6: a packet socket. (A raw socket would do, but its route stays with the connection until the next packet
  from the network, and as long the device of the address cannot be deleted: net/ipv6/raw.c sets
  FLOWI_FLAG_KNOWN_NH, for which net/ipv6/route.c makes a route of its own.)
- Where a socket is bound to a device, a raw socket in both cases: only so the packet counts as come by it.

Source: raw(7), packet(7); net/ipv4/raw.c raw_send_hdrinc(), net/ipv4/ip_input.c ip_rcv_finish_core(),
net/ipv6/ip6_input.c ip6_rcv_core().
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable, Mapping

from migrate.gap import packets
from migrate.gap.packets import Segment
from tcpcp.endpoint.isolation import MARK, Flow
from tcpcp.record.ici import Endpoint

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address

#: How much is kept of what arrives too early; the newest is dropped.
MOST_WAITING_BYTES = 128 << 20

_IP_PKTINFO = 8
#: struct in_pktinfo: only the interface.
_PKTINFO = struct.Struct("=i8x")
#: Ethernet, from nobody to nobody, which is the loopback interface.
_LO_HEADER = bytes(12) + b"\x86\xdd"


class Injector:
    """Sockets of the network namespace it was made in.

    :raises OSError: they cannot be had (CAP_NET_RAW); nothing is left.
    :ivar refused: packets that the kernel did not take.
    """

    def __init__(self) -> None:
        self.refused = 0
        self._devices: dict[bytes, int] = {}
        self._sockets: list[dict[str, socket.socket]] = []
        try:
            for mark in (0, MARK):
                self._sockets.append({})
                for name, make in _MAKERS.items():
                    self._sockets[-1][name] = make()
                    if mark:
                        self._sockets[-1][name].setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        except BaseException:
            self.close()
            raise

    def by_device(self, devices: Mapping[Ip, int]) -> None:
        """For local addresses with sockets that are bound to a device, and for link-local ones: say the
        interface's index."""
        self._devices = {ip.packed: index for ip, index in devices.items()}

    def give(self, segment: Segment, *, marked: bool = False) -> None:
        """Have the host receive *segment*; the kernel has dealt with it when this returns, in most cases.

        :param segment: to a local address, with its packet, see :func:`migrate.gap.packets.whole`.
        :param marked: it passes the filter that holds its connection.
        """
        sockets, packet, local = self._sockets[marked], segment.packet, packets.local_ip(segment)
        try:
            if segment.version == 4:
                self._give_ipv4(sockets["ipv4"], packet, local)
            elif index := self._devices.get(local, 0):
                sockets["ipv6"].sendto(packet, (socket.inet_ntop(socket.AF_INET6, local), 0, 0, index))
            else:
                sockets["lo"].send(_LO_HEADER + packet)
        except OSError:
            self.refused += 1  # lost, as on any network

    def _give_ipv4(self, sock: socket.socket, packet: bytes, local: bytes) -> None:
        where, index = (socket.inet_ntop(socket.AF_INET, local), 0), self._devices.get(local, 0)
        came_by = [(socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO.pack(index))] if index else []
        sock.sendmsg([packet], came_by, 0, where)

    def close(self) -> None:
        """May be called twice. Takes 10 ms and more, as :func:`migrate.switch.announce.open_sender` says."""
        while self._sockets:
            for one in self._sockets.pop().values():
                one.close()


def _raw(family: int) -> socket.socket:
    return socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)


def _on_lo() -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        sock.bind(("lo", 0))
    except BaseException:
        sock.close()
        raise
    return sock


_MAKERS = {"ipv4": lambda: _raw(socket.AF_INET), "ipv6": lambda: _raw(socket.AF_INET6), "lo": _on_lo}


class Inlet:
    """Gives the packets of the gap to restored connections, in their order, and ahead of what is sent now.

    The order matters more than the time. Let one live packet in first, and its acknowledgement tells the
    peer that all older ones are missing: it sends them again at once (RACK). So:

    0. :meth:`only` says which connections there are; nothing else gets in.
    1. :meth:`add` what the origin sends; it waits.
    2. After COMMIT, while the filter still holds everything: :meth:`fill` gives the waiting data to the
       connections. Their acknowledgements do not get out, so no peer sends more yet.
    3. When the filter has been lifted: :meth:`open`. It has each connection acknowledge what it got, and
       gives the rest: what needs an answer of its own (a request for a connection, an end), what belongs to
       a connection in another state, and what arrived meanwhile.
    4. Later packets go straight through :meth:`add`.

    :ivar given: packets given. :ivar dropped: packets that did not fit.
    """

    def __init__(self, injector: Injector) -> None:
        self._injector = injector
        self._wanted = packets.Wanted()
        self._waiting: list[Segment] = []
        self._waiting_bytes = 0
        self._nudges: dict[bytes, Segment] = {}
        self._open = False
        self.given = self.dropped = 0

    def only(self, flows: Iterable[Flow], listeners: Iterable[Endpoint]) -> None:
        """Say what is taken: packets of these connections, and SYNs to these listeners.

        Costs nothing now: *flows* is gone through when the first packet arrives.
        """
        self._wanted = packets.Wanted(flows, listeners)

    def add(self, arrived: Iterable[Segment]) -> None:
        """Take what has arrived: keep it, or after :meth:`open` give it at once."""
        for segment in arrived:
            if segment not in self._wanted:
                continue
            if self._open:
                self._give(segment)
            elif self._waiting_bytes + len(segment.packet) > MOST_WAITING_BYTES:
                self.dropped += 1
            else:
                self._waiting.append(segment)
                self._waiting_bytes += len(segment.packet)

    def fill(self, late: Iterable[Flow] = ()) -> None:
        """Give what waits and needs no answer of its own; see the class, point 2.

        :param late: connections in another state than ESTABLISHED, which :meth:`open` will serve.
        """
        later = set(map(packets.flow_key, late)) if self._waiting else set()
        kept = []
        for segment in self._waiting:
            if segment.flags & (packets.SYN | packets.FIN | packets.RST):
                later.add(segment.key)  # with whatever comes behind it
            if segment.key in later:
                kept.append(segment)
                continue
            if segment.payload and segment.key not in self._nudges:
                self._nudges[segment.key] = packets.outdated(segment)
            self._give(segment, marked=True)
        self._waiting = kept

    def open(self) -> None:
        """Have what was given acknowledged; give what waits, and from now on whatever is added."""
        self._open = True
        for nudge in self._nudges.values():
            self._injector.give(packets.whole(nudge))
        self._nudges.clear()
        waiting, self._waiting = self._waiting, []
        for segment in waiting:
            self._give(segment)

    def _give(self, segment: Segment, *, marked: bool = False) -> None:
        self._injector.give(segment, marked=marked)
        self.given += 1
