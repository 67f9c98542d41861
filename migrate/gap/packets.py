"""TCP packets as they were captured: taken apart, judged, and made ready to be given to another stack. Pure.

A captured packet is not yet one that could have come over a wire. It may be longer than the device's MTU
(receive offload joins segments), lack its checksum (between virtual devices nobody computes it), or have
padding behind it. :func:`parse` takes one apart, once on each host; :func:`split` cuts it to size, :func:`whole`
makes a packet of it again, with its lengths and checksums, where anything was changed.

Source: RFC 791, RFC 8200, RFC 9293 section 3.1, RFC 1071, RFC 2675 (jumbograms); net/core/gro.c and
net/ipv4/tcp_offload.c tcp_gso_segment() for which flags go into which segment.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from tcpcp.endpoint.isolation import Flow
from tcpcp.record.checksum import checksum, total
from tcpcp.record.ici import Endpoint

FIN, SYN, RST, PSH, ACK, URG, CWR = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x80

_TCP, _HOP_BY_HOP = 6, 0
_IPV4_BYTES, _IPV6_BYTES, _TCP_BYTES = 20, 40, 20
#: Real ones have 8. Of a packet that is half hop-by-hop header, splitting would make many times as much.
_MOST_HOP_BY_HOP_BYTES = 256
_MOST_PACKET_BYTES = 0xFFFF
_MORE_FRAGMENTS_OR_OFFSET = 0x3FFF
_U16 = struct.Struct("!H")
_U32 = struct.Struct("!I")
_PORTS = struct.Struct("!HH")
_LENGTH_AND_PROTOCOL = struct.Struct("!II")


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment and the IP header it came with.

    :ivar ip: the IP header, with its options; of IPv6 with a hop-by-hop header, if there is one.
    :ivar tcp: the TCP header with its options.
    :ivar key: what tells its connection, see :func:`flow_key`.
    :ivar packet: all of it as it came, without padding; empty: it is not what it was, and has to be built.
    """

    ip: bytes
    tcp: bytes
    payload: bytes
    key: bytes
    packet: bytes = b""

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.ip[0] >> 4

    @property
    def flags(self) -> int:
        """FIN, SYN, ... as a sum."""
        return self.tcp[13]

    @property
    def opens(self) -> bool:
        """It asks for a new connection."""
        return self.flags & (FIN | SYN | RST | ACK) == SYN


def parse(data: bytes) -> Segment | None:
    """The TCP segment in the IP packet *data*, which may have padding behind it.

    :return: None for what is not carried over: a fragment, another protocol, IPv6 extension headers other
        than a short hop-by-hop, a packet cut short or malformed.
    """
    if len(data) < _IPV4_BYTES:
        return None
    if data[0] >> 4 == 4:
        return _parse_ipv4(data)
    if data[0] >> 4 == 6 and len(data) >= _IPV6_BYTES:
        return _parse_ipv6(data)
    return None


def parse_all(packets: Iterable[bytes]) -> Iterator[Segment]:
    """:func:`parse` each of *packets*; those are left out that are not carried over, or not whole."""
    return (segment for segment in map(parse, packets) if segment is not None and segment.packet)


def _parse_ipv4(data: bytes) -> Segment | None:
    header = 4 * (data[0] & 0xF)
    length: int = _U16.unpack_from(data, 2)[0]  # 0 in a packet that GRO made longer than 65535
    fragment = _U16.unpack_from(data, 6)[0] & _MORE_FRAGMENTS_OR_OFFSET
    if data[9] != _TCP or fragment or header < _IPV4_BYTES:
        return None
    end = length or len(data)
    return _parse_tcp(data, data[:header], header, end, data[12:20], as_it_came=bool(length))


def _parse_ipv6(data: bytes) -> Segment | None:
    length: int = _U16.unpack_from(data, 4)[0]
    end, at, header = _IPV6_BYTES + length if length else len(data), _IPV6_BYTES, data[:_IPV6_BYTES]
    if data[6] == _HOP_BY_HOP and len(data) > at + 8 and data[at] == _TCP:
        after = at + 8 * (data[at + 1] + 1)
        if after - at > _MOST_HOP_BY_HOP_BYTES:
            return None
        # A jumbogram's hop-by-hop header says its length, which it will not have any more.
        header = data[:after] if length else data[:6] + bytes([_TCP]) + data[7:_IPV6_BYTES]
        at = after
    elif data[6] != _TCP:
        return None
    return _parse_tcp(data, header, at, end, data[8:40], as_it_came=bool(length))


def _parse_tcp(
    data: bytes, header: bytes, at: int, end: int, addresses: bytes, *, as_it_came: bool
) -> Segment | None:
    if end > len(data) or end < at + _TCP_BYTES:
        return None
    payload = at + 4 * (data[at + 12] >> 4)
    if not at + _TCP_BYTES <= payload <= end:
        return None
    packet = data[:end] if as_it_came else b""
    return Segment(header, data[at:payload], data[payload:end], addresses + data[at : at + 4], packet)


def local_ip(segment: Segment) -> bytes:
    """The address that *segment* came to, 4 or 16 bytes."""
    half = (len(segment.key) - 4) // 2
    return segment.key[half : 2 * half]


def intact(segment: Segment) -> bool:
    """Whether its TCP checksum is right."""
    body = segment.tcp + segment.payload
    return total(_pseudo(segment, len(body)) + body) == 0


def split(segment: Segment, packet_bytes: int) -> list[Segment]:
    """Cut *segment* into ones that make packets of at most *packet_bytes*.

    FIN and PSH are the last one's, CWR is the first one's. A SYN, a RST and urgent data stay as they are; if
    that is more than a packet can be, nothing is left of it.
    """
    room = max(1, packet_bytes - len(segment.ip) - len(segment.tcp))
    whole = segment.payload
    if len(whole) <= room:
        return [segment]
    if segment.flags & (SYN | RST | URG):
        size = len(segment.ip) + len(segment.tcp) + len(whole)
        return [segment] if size <= _MOST_PACKET_BYTES else []
    starts = range(0, len(whole), room)
    return [
        _piece(segment, number, start, whole[start : start + room]) for number, start in enumerate(starts)
    ]


def _piece(segment: Segment, number: int, start: int, payload: bytes) -> Segment:
    ip, tcp, flags = bytearray(segment.ip), bytearray(segment.tcp), segment.flags
    if start + len(payload) < len(segment.payload):
        flags &= ~(FIN | PSH)
    if number:
        flags &= ~CWR
    tcp[13] = flags
    _U32.pack_into(tcp, 4, (_U32.unpack_from(tcp, 4)[0] + start) & 0xFFFFFFFF)
    if segment.version == 4:
        _U16.pack_into(ip, 4, (_U16.unpack_from(ip, 4)[0] + number) & 0xFFFF)
    return replace(segment, ip=bytes(ip), tcp=bytes(tcp), payload=payload, packet=b"")


def whole(segment: Segment) -> Segment:
    """*segment* with its packet, which is built where there is none.

    :raises ValueError: as :func:`build`.
    """
    return segment if segment.packet else replace(segment, packet=build(segment))


def build(segment: Segment) -> bytes:
    """The packet, with its lengths and checksums filled in.

    :raises ValueError: it is longer than a packet can be; :func:`split` it.
    """
    ip, tcp, payload = segment.ip, segment.tcp, segment.payload
    size = len(ip) + len(tcp) + len(payload)
    if size > _MOST_PACKET_BYTES:
        raise ValueError(f"a packet of {size} bytes")
    if segment.version == 4:
        head = ip[:2] + _U16.pack(size) + ip[4:10]
        ip = head + _U16.pack(checksum(head + ip[12:])) + ip[12:]
    else:
        ip = ip[:4] + _U16.pack(size - _IPV6_BYTES) + ip[6:]
    body = tcp[:16] + b"\0\0" + tcp[18:] + payload
    return ip + body[:16] + _U16.pack(checksum(_pseudo(segment, len(body)) + body)) + body[18:]


def outdated(segment: Segment) -> Segment:
    """An empty segment from before *segment*, which its receiver discards and answers with what it has.

    It is what a keepalive probe looks like: RFC 1122 section 4.2.3.6; net/ipv4/tcp_input.c tcp_send_dupack().
    It has no timestamp, since one older than the receiver's last would have it discarded in silence.
    """
    tcp = bytearray(segment.tcp[:_TCP_BYTES])
    _U32.pack_into(tcp, 4, (_U32.unpack_from(tcp, 4)[0] - 1) & 0xFFFFFFFF)
    tcp[12], tcp[13] = _TCP_BYTES // 4 << 4, ACK
    return replace(segment, tcp=bytes(tcp), payload=b"", packet=b"")


def _pseudo(segment: Segment, length: int) -> bytes:
    """The pseudo header of the TCP checksum."""
    return segment.key[:-4] + _LENGTH_AND_PROTOCOL.pack(length, _TCP)


def flow_key(flow: Flow) -> bytes:
    """*flow* as it stands in an arriving packet: peer address, local address, peer port, local port."""
    peer, local = flow.peer, flow.local
    return peer.ip.packed + local.ip.packed + _PORTS.pack(peer.port, local.port)


class Wanted:
    """Which segments are to be carried over: those of some connections, and SYNs to some listeners.

    A segment of any other connection must not be: where it goes it would meet no socket, and draw a reset.

    To make one costs nothing: *flows* and *listeners* are gone through when the first segment is asked for.

    :param listeners: where they are bound; 0.0.0.0 and :: stand for every address.
    """

    def __init__(self, flows: Iterable[Flow] = (), listeners: Iterable[Endpoint] = ()) -> None:
        self._of, self._at = flows, listeners

    @cached_property
    def _flows(self) -> frozenset[bytes]:
        return frozenset(map(flow_key, self._of))

    @cached_property
    def _bound(self) -> frozenset[bytes]:
        """Address and port; the version instead of an address where any is meant."""
        return frozenset(
            (bytes([one.ip.version]) if one.ip.is_unspecified else one.ip.packed) + _U16.pack(one.port)
            for one in self._at
        )

    def __contains__(self, segment: Segment) -> bool:
        if segment.key in self._flows:
            return True
        if not segment.opens:
            return False
        port, version = segment.key[-2:], bytes([segment.version])
        return local_ip(segment) + port in self._bound or version + port in self._bound
