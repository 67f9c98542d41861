"""The packets of the gap: caught where they arrive while nobody may answer, and sent to the destination.

A :class:`Capture` is a pair of packet sockets, IPv4 and IPv6. They see a packet before the packet filter
drops it, and whether the host still has the address or not. Their receive buffers are the store: bounded,
filled by the kernel while this program does something else, and empty of cost while nothing arrives. When one
is full the *newest* packets are dropped and counted: a receiver can use the beginning of a stream without the
rest, not the rest without the beginning.

A :class:`Forwarder` sends what one has caught, from a thread that sleeps while nothing comes.

Source: packet(7); net/packet/af_packet.c packet_rcv(), packet_recvmsg().
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import ipaddress
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable

from migrate import threads
from migrate.errors import MigrateError
from migrate.gap import filter, packets
from migrate.gap.packets import Segment
from tcpcp.endpoint.isolation import Flow
from tcpcp.record.ici import Endpoint

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address

#: How much the kernel keeps for each IP version. It counts whole buffers: about 800 bytes for a small packet.
STORE_BYTES = 32 << 20
#: Packets of what size a joined one is cut into.
PACKET_BYTES = 1500
#: One message holds about this much, and one migration sends at most so much ahead of the rest.
MESSAGE_BYTES = 128 << 10
MOST_FORWARDED_BYTES = 128 << 20
#: The pause after a message: what arrives meanwhile goes together.
PAUSE_S = 0.002

_ETH_P_IP, _ETH_P_IPV6 = 0x0800, 0x86DD
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_AUXDATA = 263, 6, 8
#: struct tpacket_auxdata
_AUXDATA = struct.Struct("=IIIHHHH")
_CHECKSUM_NOT_READY, _CHECKSUM_VALID = 1 << 3, 1 << 7
_LARGEST_BYTES = 1 << 20


class Capture:
    """Catches TCP packets that arrive at this host, of the network namespace it was made in.

    :param addresses: local addresses whose packets count; none: all of them.
    :param descriptors: of one that another process has made and handed down, instead of new ones: it goes on
        catching what it was told to.
    :raises OSError: packet sockets cannot be had (CAP_NET_RAW); nothing is left.

    Nothing is caught before :meth:`syns` or :meth:`everything`. Which connections count is said by
    :meth:`only`; without it all do. Making one, and closing it, takes some 10 ms: do neither in a hurry.
    """

    def __init__(
        self,
        addresses: Iterable[Ip] = (),
        *,
        packet_bytes: int = PACKET_BYTES,
        descriptors: Iterable[int] = (),
    ) -> None:
        self._addresses = list(addresses)
        self._packet_bytes = packet_bytes
        self._buffer = memoryview(bytearray(_LARGEST_BYTES))
        self._wanted: packets.Wanted | None = None
        self._sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        self._everything = [make(self._addresses) for make in (filter.for_ipv4, filter.for_ipv6)]
        #: Packets lost because the store was full.
        self.dropped = 0
        if self._sockets:
            return
        try:
            for protocol in (_ETH_P_IP, _ETH_P_IPV6):
                self._sockets.append(_deaf_socket(protocol))
        except BaseException:
            self.close()
            raise

    def syns(self, listeners: Iterable[Endpoint]) -> None:
        """From now on catch requests for new connections to *listeners*, which are about to be held."""
        ports = {one.port for one in listeners}
        if ports:
            self._attach(
                [make(self._addresses, ports, syn_only=True) for make in (filter.for_ipv4, filter.for_ipv6)]
            )

    def everything(self) -> None:
        """From now on catch every TCP packet to the addresses. To be called just before they are held:
        what is caught and delivered as well is a duplicate, which TCP discards."""
        self._attach(self._everything)

    def nothing(self) -> None:
        """Catch no more; what was caught stays."""
        self._attach([filter.nothing()] * 2)

    def only(self, flows: Iterable[Flow], listeners: Iterable[Endpoint]) -> None:
        """Of what is and was caught give out only these connections, and SYNs to these listeners.

        Costs nothing now: *flows* is gone through when the first packet is asked for.
        """
        self._wanted = packets.Wanted(flows, listeners)

    def take(self, most_bytes: int = 1 << 62) -> list[Segment]:
        """What was caught and not yet taken, in the order of its arrival: whole packets, with checksums.

        :param most_bytes: stop at about so much.
        """
        taken: list[Segment] = []
        for sock in self._sockets:
            while most_bytes > 0 and (data := self._receive(sock)) is not None:
                fresh = self._made_ready(*data)
                taken += fresh
                most_bytes -= sum(len(one.packet) for one in fresh)
        return taken

    def _receive(self, sock: socket.socket) -> tuple[bytes, int] | None:
        """A packet and its status, TP_STATUS_*."""
        try:
            size, ancillary, _, _ = sock.recvmsg_into([self._buffer], 64)
        except BlockingIOError:
            return None
        status = _AUXDATA.unpack(ancillary[0][2])[0] if ancillary else 0
        return bytes(self._buffer[:size]), status

    def _made_ready(self, data: bytes, status: int) -> list[Segment]:
        segment = packets.parse(data)
        if segment is None or (self._wanted is not None and segment not in self._wanted):
            return []
        if status & (_CHECKSUM_NOT_READY | _CHECKSUM_VALID):
            # The sum need not be there, nor that of one that was joined of several.
            segment = dataclasses.replace(segment, packet=b"")
        elif not packets.intact(segment):
            return []  # damaged on its way; with a new checksum it would be believed
        return [packets.whole(piece) for piece in packets.split(segment, self._packet_bytes)]

    def count_dropped(self) -> int:
        """Bring :attr:`dropped` up to date and return it."""
        for sock in self._sockets:
            # Reading them sets them to 0.
            _, dropped = struct.unpack("=II", sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
            self.dropped += dropped
        return self.dropped

    def descriptors(self) -> list[int]:
        """What becomes readable when a packet has been caught."""
        return [sock.fileno() for sock in self._sockets]

    def close(self) -> None:
        """Catch no more, also where another process has it too; forget what was not taken. May be called twice."""
        if len(self._sockets) == len(self._everything):
            self.nothing()
        while self._sockets:
            self._sockets.pop().close()

    def _attach(self, programs: list[bytes]) -> None:
        for sock, program in zip(self._sockets, programs, strict=True):
            _attach(sock, program)


def _deaf_socket(protocol: int) -> socket.socket:
    """Of one protocol it sees what is received, never what is sent, and behind a bridge or a bond only once
    (net/core/dev.c: ptype_base, after the rx_handler)."""
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    sock = socket.socket(socket.AF_PACKET, kind, socket.htons(protocol))
    try:
        _attach(sock, filter.nothing())
        sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, STORE_BYTES // 2)  # the kernel doubles it
        with contextlib.suppress(BlockingIOError):
            while sock.recv(1, socket.MSG_TRUNC):  # what came before the filter was there
                pass
        # And what had no room then is not counted as lost.
        sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
    except BaseException:
        sock.close()
        raise
    return sock


def _attach(sock: socket.socket, program: bytes) -> None:
    code = ctypes.create_string_buffer(program, len(program))
    length = len(program) // filter.INSTRUCTION_BYTES
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", length, ctypes.addressof(code)))


class Forwarder:
    """Sends what *capture* catches, until :meth:`stop`, from a thread of its own.

    :param send: takes packets; may raise MigrateError, after which nothing more is sent.
    :param keep: takes packets that are about to be sent.
    :ivar packets: how many were sent. :ivar sent_bytes: how much.

    A packet that cannot be sent is lost as on any network; nothing here fails a migration.
    """

    def __init__(
        self,
        capture: Capture,
        send: Callable[[list[bytes]], None],
        keep: Callable[[list[bytes]], None] = lambda packets: None,
    ) -> None:
        self._capture, self._send, self._keep = capture, send, keep
        self._lock = threading.Lock()
        self._broken = False
        self.packets = self.sent_bytes = 0
        self._forwarded_at = 0.0
        self._stopping, self._wake = os.pipe2(os.O_CLOEXEC)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin. Before this, packets wait in the store: start it when there is time, not in a hurry."""
        self._thread = threading.Thread(target=self._run, name="gap-forwarder", daemon=True)
        threads.start(self._thread)

    def catch_up(self) -> None:
        """Send what has been caught up to now. The messages are with the link when this returns."""
        with self._lock:
            while not self._broken and (taken := self._capture.take(MESSAGE_BYTES)):
                self._forward(taken)

    def _forward(self, segments: list[Segment]) -> None:
        taken = [one.packet for one in segments]
        self._keep(taken)
        size = sum(map(len, taken))
        if self.sent_bytes + size > MOST_FORWARDED_BYTES:
            self._capture.dropped += len(taken)
            return
        try:
            self._send(taken)
        except MigrateError:  # however the link has ended: that is told by who waits for an answer
            self._broken = True
            return
        self.packets += len(taken)
        self.sent_bytes += size
        self._forwarded_at = time.monotonic()

    def _run(self) -> None:
        poll = select.poll()
        for descriptor in (self._stopping, *self._capture.descriptors()):
            poll.register(descriptor, select.POLLIN)
        while not self._broken and self._stopping not in {ready for ready, _ in poll.poll()}:
            self.catch_up()
            time.sleep(PAUSE_S)

    def linger(self, quiet_s: float, most_s: float) -> None:
        """Wait until nothing has been sent for *quiet_s*, at most *most_s*: packets that come late, from
        hosts that do not know yet where the address is now."""
        began = time.monotonic()
        while not self._broken:
            quiet_since = max(self._forwarded_at, began)
            left_s = min(quiet_since + quiet_s, began + most_s) - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(left_s)

    def give_back(self) -> Capture:
        """End the thread, and return the capture, which goes on catching. May be called twice."""
        if self._wake < 0:
            return self._capture
        with contextlib.suppress(BrokenPipeError):
            os.write(self._wake, b".")
        if self._thread is not None:
            self._thread.join()
        for descriptor in (self._wake, self._stopping):
            os.close(descriptor)
        self._wake = -1
        return self._capture

    def stop(self) -> None:
        """End the thread; nothing is sent any more. Closes the capture. May be called twice."""
        self.give_back()
        self._capture.count_dropped()
        self._capture.close()
