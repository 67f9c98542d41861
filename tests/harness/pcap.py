"""TCP packets out of a capture file, for the judges of captures. Uses nothing of the program that is judged.

Source: draft-ietf-opsawg-pcap (the file), www.tcpdump.org/linktypes.html, RFC 791, 8200, 9293, 7323.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10

_ETHERNET, _RAW, _SLL, _SLL2 = 1, 101, 113, 276
_VLAN = {0x8100, 0x88A8}
_IPV4, _IPV6, _TCP = 0x0800, 0x86DD, 6
_END, _NOP, _MSS, _SCALE, _TIMESTAMP = 0, 1, 2, 3, 8
_EXTENSIONS = {0, 43, 60}


#: An address and a port.
End = tuple[str, int]


def distance(new: int, old: int) -> int:
    """How far the 32-bit number *new* is ahead of *old*; negative if it is behind."""
    return (new - old + 2**31) % 2**32 - 2**31


def shown(end: End) -> str:
    """An end, for people."""
    return f"[{end[0]}]:{end[1]}" if ":" in end[0] else f"{end[0]}:{end[1]}"


class Unreadable(Exception):
    """Not a capture file that can be read here."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One TCP packet.

    :ivar number: in the file, from 1, as tcpdump and Wireshark count.
    :ivar at_s: seconds since the epoch.
    :ivar sender, receiver: address and port.
    :ivar ecn: 0 none, 1 and 2 capable, 3 congestion experienced. :ivar df: None with IPv6.
    :ivar payload: as much as was captured of *size* bytes.
    :ivar options: kind -> value.
    """

    number: int
    at_s: float
    sender: End
    receiver: End
    ttl: int
    dscp: int
    ecn: int
    df: bool | None
    seq: int
    ack: int
    flags: int
    window: int
    payload: bytes
    size: int
    options: dict[int, bytes] = field(default_factory=dict)

    def __repr__(self) -> str:
        flags = "".join(letter for bit, letter in enumerate("FSRPA.") if self.flags >> bit & 1)
        stamps = f"TSval {self.tsval} TSecr {self.tsecr}"
        where = f"{self.number} {self.at_s:.6f} {shown(self.sender)}"
        return f"<{where} [{flags}] {self.seq} +{self.size} ack {self.ack} {stamps}>"

    @property
    def octets(self) -> int:
        """How many sequence numbers it takes; SYN and FIN count."""
        return self.size + bool(self.flags & SYN) + bool(self.flags & FIN)

    @property
    def end(self) -> int:
        """The sequence number after it."""
        return (self.seq + self.octets) % 2**32

    @property
    def timestamps(self) -> tuple[int, int] | None:
        """TSval and TSecr."""
        value = self.options.get(_TIMESTAMP)
        return struct.unpack("!II", value) if value is not None and len(value) == 8 else None

    @property
    def tsval(self) -> int | None:
        """When it was sent, by its sender's clock."""
        return stamps[0] if (stamps := self.timestamps) else None

    @property
    def tsecr(self) -> int | None:
        """The other's TSval, which it has heard."""
        return stamps[1] if (stamps := self.timestamps) else None

    @property
    def mss(self) -> int | None:
        """Of a SYN."""
        value = self.options.get(_MSS)
        return int.from_bytes(value, "big") if value else None

    @property
    def scale(self) -> int | None:
        """Of a SYN: how far its sender's windows are shifted."""
        value = self.options.get(_SCALE)
        return min(value[0], 14) if value else None


def read(path: Path) -> Iterator[Packet]:
    """The TCP packets of the file, in its order.

    :raises Unreadable: not a pcap file, of a link type unknown here, or with packets cut.
    """
    data = memoryview(path.read_bytes())
    order, unit, link = _file_header(data)
    record, at, number = struct.Struct(order + "IIII"), 24, 0
    while at < len(data):
        if at + record.size > len(data):
            raise Unreadable("the file ends within a packet")
        seconds, fraction, kept, _ = record.unpack_from(data, at)
        at, number = at + record.size, number + 1
        packet = _packet(bytes(data[at : at + kept]), link, number, seconds + fraction * unit)
        at += kept
        if packet is not None:
            yield packet


def _file_header(data: memoryview) -> tuple[str, float, int]:
    for order in "<>":
        for magic, unit in ((0xA1B2C3D4, 1e-6), (0xA1B23C4D, 1e-9)):
            if len(data) >= 24 and struct.unpack_from(order + "I", data)[0] == magic:
                return order, unit, struct.unpack_from(order + "I", data, 20)[0] & 0xFFFF
    raise Unreadable("not a pcap file (write it with tcpdump -w)")


def _packet(frame: bytes, link: int, number: int, at_s: float) -> Packet | None:
    try:
        kind, start = _link(frame, link)
        return of_ip(kind, frame[start:], number, at_s)
    except (struct.error, IndexError):
        return None  # cut within its headers


def of_ip(kind: int, data: bytes, number: int, at_s: float) -> Packet | None:
    """The TCP packet that an IP packet is; None if it is something else.

    :param kind: EtherType.
    """
    if kind == _IPV4:
        return _ipv4(data, number, at_s)
    return _ipv6(data, number, at_s) if kind == _IPV6 else None


def _link(frame: bytes, link: int) -> tuple[int, int]:
    """EtherType, and where the IP header begins."""
    if link == _RAW:
        return (_IPV4 if frame[0] >> 4 == 4 else _IPV6), 0
    if link == _SLL2:
        return struct.unpack_from("!H", frame, 0)[0], 20
    if link not in (_ETHERNET, _SLL):
        raise Unreadable(f"link type {link}: capture on an Ethernet device, or on 'any'")
    at = 12 if link == _ETHERNET else 14
    (kind,) = struct.unpack_from("!H", frame, at)
    while kind in _VLAN:
        at += 4
        (kind,) = struct.unpack_from("!H", frame, at)
    return kind, at + 2


def _ipv4(data: bytes, number: int, at_s: float) -> Packet | None:
    _, tos, total, _, fragment, ttl, protocol = struct.unpack_from("!BBHHHBB", data)
    if protocol != _TCP or fragment & 0x1FFF:
        return None
    header = 4 * (data[0] & 0xF)
    ends = str(ipaddress.IPv4Address(data[12:16])), str(ipaddress.IPv4Address(data[16:20]))
    length = (total or len(data)) - header
    return _tcp(data[header:], length, number, at_s, ends, (ttl, tos >> 2, tos & 3, bool(fragment & 0x4000)))


def _ipv6(data: bytes, number: int, at_s: float) -> Packet | None:
    first, length, following, ttl = struct.unpack_from("!IHBB", data)
    traffic_class, at = first >> 20 & 0xFF, 40
    end = at + length if length else len(data)
    while following in _EXTENSIONS:
        following, at = data[at], at + 8 * (data[at + 1] + 1)
    if following != _TCP:
        return None
    ends = str(ipaddress.IPv6Address(data[8:24])), str(ipaddress.IPv6Address(data[24:40]))
    marks = (ttl, traffic_class >> 2, traffic_class & 3, None)
    return _tcp(data[at:], end - at, number, at_s, ends, marks)


def _tcp(
    data: bytes,
    length: int,
    number: int,
    at_s: float,
    ends: tuple[str, str],
    marks: tuple[int, int, int, bool | None],
) -> Packet:
    sport, dport, seq, ack, offset, flags, window = struct.unpack_from("!HHIIBBH", data)
    header = 4 * (offset >> 4)
    if len(data) < length:
        raise Unreadable(f"packet {number} was cut: capture whole packets (tcpdump -s 0)")
    return Packet(
        number, at_s, (ends[0], sport), (ends[1], dport), *marks, seq, ack, flags, window,
        data[header:length], length - header, dict(_options(data[20:header])),
    )  # fmt: skip


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data) and data[at] != _END:
        if data[at] == _NOP:
            at += 1
            continue
        size = data[at + 1]
        if size < 2:
            return
        yield data[at], data[at + 2 : at + size]
        at += size
