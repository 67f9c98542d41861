"""Captures what one case puts on the wire, and judges it with no knowledge of either end but the case.

Source: packet(7); RFC 9293 section 3.8.6 and RFC 7323 section 2.4 (windows), 5.3 (timestamps).
"""

from __future__ import annotations

import ctypes
import re
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from harness.pcap import FIN, RST, Packet, _ipv4, _ipv6
from harness.tcp_rules import after
from netns import Namespace

SOL_PACKET, PACKET_STATISTICS, PACKET_OUTGOING = 263, 6, 4
SO_RCVBUFFORCE, SO_ATTACH_FILTER = 33, 26


class Wire:
    """All TCP packets of one device from now on; *both* directions, each once."""

    def __init__(self, namespace: Namespace, device: str, fed_mark: int) -> None:
        with namespace.entered():
            self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
            self._sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 128 << 20)
            _but_marked(self._sock, fed_mark)
            self._sock.bind((device, 3))
        self._sock.setblocking(False)
        self._loopback = device == "lo"
        self.raw: list[bytes] = []

    def packets(self) -> list[Packet]:
        """What has come so far."""
        return list(self._packets())

    def _packets(self) -> Iterator[Packet]:
        for number in range(1, 1 << 30):
            try:
                data, (_, kind, direction, *_) = self._sock.recvfrom(1 << 17)
            except BlockingIOError:
                break
            if self._loopback and direction != PACKET_OUTGOING:
                continue  # the same once more
            self.raw.append(data)
            packet = _ipv6(data, number, 0.0) if kind == 0x86DD else _ipv4(data, number, 0.0)
            if packet is not None:
                yield packet
        dropped = struct.unpack("=II", self._sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
        assert not dropped, f"the capture has lost {dropped} packets"

    def close(self) -> None:
        self._sock.close()


def _but_marked(sock: socket.socket, mark: int) -> None:
    """ld mark; jeq #mark, drop, take (SKF_AD_OFF + SKF_AD_MARK, include/uapi/linux/filter.h)."""
    code = [(0x20, 0, 0, 0xFFFFF000 + 20), (0x15, 0, 1, mark), (0x06, 0, 0, 0), (0x06, 0, 0, 1 << 18)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in code))
    sock.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(code), ctypes.addressof(program))
    )


@dataclass
class Side:
    """What is known of one end before the capture begins, and of what it has sent since.

    :ivar isn: sequence number of the first byte written. :ivar wrote: all of them.
    :ivar shift: of its windows. :ivar judged: they are, and its timestamps; the peer's may have come late.
    :ivar largest: payload that the other has agreed to, and the path can take.
    """

    isn: int
    wrote: bytes
    shift: int
    largest: int
    judged: bool
    edge: int | None = None
    tsval: int | None = None
    acked: int | None = None
    up_to: int | None = None
    again: int = 0
    fin: int | None = None
    over: bool = False
    late: int = 0


def faults(packets: list[Packet], sides: dict[tuple[str, int], Side], stamps: bool) -> Iterator[str]:
    """What is wrong: of each kind the first, and how often. The peer's windows are its own affair."""
    found: dict[str, list[str]] = {}
    for fault in _each(packets, sides, stamps):
        found.setdefault(kind_of(fault), []).append(fault)
    for same in found.values():
        yield same[0] + (f" (and {len(same) - 1} like it)" if len(same) > 1 else "")


def kind_of(fault: str) -> str:
    """Without its numbers."""
    return re.sub(r"\d+", "N", fault.split(" (and ")[0])


def _each(packets: list[Packet], sides: dict[tuple[str, int], Side], stamps: bool) -> Iterator[str]:
    for packet in packets:
        side = sides.get(packet.sender)
        if side is None or packet.receiver not in sides or packet.flags & 2:
            continue
        if all(one.over for one in sides.values()):
            side.late += bool(packet.flags & RST)  # an answer to what was on its way still
            continue
        for fault in _of_packet(packet, side, stamps):
            name = "here" if side is next(iter(sides.values())) else "there"
            yield f"packet {packet.number} from {name}: {fault}"
        _ended(packet, side, sides[packet.receiver])


def _ended(packet: Packet, side: Side, other: Side) -> None:
    """Notes a FIN, and that the other's is acknowledged."""
    if packet.flags & FIN:
        side.fin = (packet.seq + packet.size + 1) % 2**32
    if other.fin is not None and packet.ack == other.fin:
        other.over = True


def _of_packet(packet: Packet, side: Side, stamps: bool) -> Iterator[str]:
    if packet.flags & RST:
        yield "a reset"
        return
    yield from _window(packet, side)
    yield from _timestamps(packet, side, stamps)
    yield from _payload(packet, side)


def _window(packet: Packet, side: Side) -> Iterator[str]:
    if side.acked is not None and after(side.acked, packet.ack):
        yield f"its acknowledgement went back by {(side.acked - packet.ack) % 2**32}"
    side.acked = packet.ack
    edge = (packet.ack + (packet.window << side.shift)) % 2**32
    if side.judged and side.edge is not None and after(side.edge, (edge + (1 << side.shift) - 1) % 2**32):
        yield f"its window's right edge went back by {(side.edge - edge) % 2**32}, the field is {packet.window}"
        return
    side.edge = edge


def _timestamps(packet: Packet, side: Side, stamps: bool) -> Iterator[str]:
    if (packet.timestamps is not None) != stamps:
        yield f"timestamps {packet.timestamps}, agreed: {stamps}"
        return
    if packet.timestamps:
        if side.judged and side.tsval is not None and after(side.tsval, packet.timestamps[0]):
            yield f"its timestamp went back by {(side.tsval - packet.timestamps[0]) % 2**32}"
        side.tsval = packet.timestamps[0]


def _payload(packet: Packet, side: Side) -> Iterator[str]:
    if packet.size > side.largest:
        yield f"{packet.size} bytes, at most {side.largest} were agreed"
    start = (packet.seq - side.isn) % 2**32
    if packet.size and packet.payload != bytes(side.wrote[start : start + packet.size]):
        yield f"bytes that were not written at {start}"
    end = (packet.seq + packet.size + bool(packet.flags & FIN)) % 2**32
    if packet.flags & FIN and start + packet.size != len(side.wrote):
        yield f"a FIN at {start + packet.size} of {len(side.wrote)} bytes"
    if side.up_to is None or after(end, side.up_to):
        side.up_to = end
    elif packet.size:  # a FIN alone is said again where its acknowledgement is delayed: a loss probe
        side.again += 1
