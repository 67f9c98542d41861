"""Captures what one case puts on the wire, and judges it with no knowledge of either end but the case.

Source: packet(7); RFC 9293 section 3.8.6 and RFC 7323 section 2.4 (windows), 5.3 (timestamps).
"""

from __future__ import annotations

import ctypes
import re
import socket
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from harness import tcp_rules
from harness.pcap import FIN, RST, SYN, Packet, distance, of_ip
from harness.tcp_rules import Direction
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
            packet = of_ip(kind, data, number, 0.0)
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
    :ivar stamps: the timestamps of the last two that were judged.
    """

    isn: int
    wrote: bytes
    shift: int
    largest: int
    judged: bool
    direction: Direction = field(init=False)
    again: int = 0
    fin: int | None = None
    over: bool = False
    late: int = 0
    stamps: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=2))

    def __post_init__(self) -> None:
        self.direction = Direction("here" if self.judged else "there")
        self.direction.shift = self.shift


def faults(packets: list[Packet], sides: dict[tuple[str, int], Side], stamps: bool) -> Iterator[str]:
    """What is wrong: of each kind the first, and how often. The peer's windows are its own affair."""
    for packet in packets:
        side, other = sides.get(packet.sender), sides.get(packet.receiver)
        if side is not None and other is not None and not packet.flags & SYN:
            _judge(packet, side, other, stamps)
    found: dict[str, list[str]] = {}
    each = [f"{one.direction.name}: {fault}" for one in sides.values() for fault in one.direction.faults]
    for fault in each:
        found.setdefault(kind_of(fault), []).append(fault)
    for same in found.values():
        yield same[0] + (f" (and {len(same) - 1} like it)" if len(same) > 1 else "")


def kind_of(fault: str) -> str:
    """Without its numbers."""
    return re.sub(r"\d+", "N", fault.split(" (and ")[0])


def _judge(packet: Packet, side: Side, other: Side, stamps: bool) -> None:
    if side.over and other.over:
        side.late += bool(packet.flags & RST)  # an answer to what was on its way still
        return
    if not tcp_rules.reset(side.direction, packet):
        _by_rules(packet, side, other)
        _by_case(packet, side, stamps)
    if packet.flags & FIN:
        side.fin = packet.end
    if other.fin is not None and packet.ack == other.fin:
        other.over = True


def _by_rules(packet: Packet, side: Side, other: Side) -> None:
    """As any connection. The peer's timestamps may have come late."""
    mine, its = side.direction, other.direction
    tcp_rules.of_numbers(mine, its, packet)
    if side.judged:
        tcp_rules.window(mine, packet)
        if not _overtaken(side, other, packet):
            tcp_rules.timestamp(mine, its, packet)
            tcp_rules.echo(mine, its, packet)
            side.stamps.extend([packet.timestamps] if packet.timestamps else [])


def _overtaken(side: Side, other: Side, packet: Packet) -> bool:
    """Whether it is what asks a shut window, and what the kernel has sent in the same moment came before it.

    That is the socket's, and this a raw socket's: nothing keeps them in order (tests/facts/test_asking.py). It is
    behind that one alone.
    """
    asks = not packet.octets and (packet.seq + 1) % 2**32 == other.direction.acked
    if not asks or packet.timestamps is None or len(side.stamps) < 2:
        return False
    before, last = (
        [distance(new, old) for new, old in zip(packet.timestamps, one, strict=True)] for one in side.stamps
    )
    return min(last) < 0 <= min(before)


def _by_case(packet: Packet, side: Side, stamps: bool) -> None:
    """As this one, of which more is known."""
    mine = side.direction
    if (packet.timestamps is not None) != stamps:
        mine.wrong(packet, f"timestamps {packet.timestamps}, agreed: {stamps}")
    if packet.size > side.largest:
        mine.wrong(packet, f"{packet.size} bytes, at most {side.largest} were agreed")
    start = (packet.seq - side.isn) % 2**32
    if packet.size and packet.payload != bytes(side.wrote[start : start + packet.size]):
        mine.wrong(packet, f"bytes that were not written at {start}")
    if packet.flags & FIN and start + packet.size != len(side.wrote):
        mine.wrong(packet, f"a FIN at {start + packet.size} of {len(side.wrote)} bytes")
    # A FIN alone is said again where its acknowledgement is delayed: a loss probe.
    if packet.size and not mine.fresh:
        side.again += 1
