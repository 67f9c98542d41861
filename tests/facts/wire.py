"""What is on the wire: a capture of one side's TCP segments, without the library."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from harness import wait
from netns import Namespace

_ETH_P_ALL, _OUTGOING = 3, 4


class Segment(NamedTuple):
    """One TCP segment; numbers as on the wire, the window not scaled."""

    sport: int
    dport: int
    seq: int
    ack: int
    flags: int
    window: int
    outgoing: bool


class Wire:
    """A packet socket on every device of a namespace."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def segments(self) -> list[Segment]:
        """All since the last call."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                packet, address = self._sock.recvfrom(70000)
                if segment := _segment(packet, address[2] == _OUTGOING):
                    found.append(segment)
        return found

    def wait_from(self, port: int, seconds: float) -> list[Segment]:
        """Segments from *port*, as soon as there is one; none after *seconds*."""
        with contextlib.suppress(wait.TooLate):
            return wait.eventually(
                lambda: [one for one in self.segments() if one.sport == port], "", seconds, pause_s=0.002
            )
        return []


def _segment(packet: bytes, outgoing: bool) -> Segment | None:
    version = packet[0] >> 4
    protocol, header = (packet[9], (packet[0] & 15) * 4) if version == 4 else (packet[6], 40)
    if version not in (4, 6) or protocol != socket.IPPROTO_TCP:
        return None
    sport, dport, seq, ack, _, flags, window = struct.unpack_from("!HHIIBBH", packet, header)
    return Segment(sport, dport, seq, ack, flags, window, outgoing)


@contextlib.contextmanager
def captured(namespace: Namespace) -> Iterator[Wire]:
    """While the block runs, the segments that pass any device of *namespace*."""
    with namespace.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
    sock.setblocking(False)
    with sock:
        yield Wire(sock)
