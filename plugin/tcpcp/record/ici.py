"""The ICI: what the kernel needs to rebuild one TCP endpoint (paper section 4, Table 1).

A value, made by :func:`tcpcp.get` from a socket or by :mod:`tcpcp.record.codec` from bytes. It never changes;
use :func:`dataclasses.replace`. Everything that can be derived (``snd_una``, ``write_seq``,
``copied_seq``) is derived, so two fields cannot contradict each other.
"""

from __future__ import annotations

import enum
import ipaddress
import socket
from dataclasses import dataclass, field, replace

from tcpcp.record import seq

VERSION = 3


class State(enum.IntEnum):
    """States of a connection, numbered as in the kernel's include/net/tcp_states.h."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11


#: States in which we have sent, or are about to send, a FIN. CLOSE: both sides have closed, and what the
#: peer sent before its FIN is still to be read.
FIN_OUT = frozenset({State.FIN_WAIT1, State.FIN_WAIT2, State.CLOSING, State.LAST_ACK, State.CLOSE})
#: States in which the peer's FIN has been received.
FIN_IN = frozenset({State.CLOSE_WAIT, State.LAST_ACK, State.CLOSING, State.CLOSE})
#: States in which the peer has acknowledged our FIN.
FIN_ACKED = frozenset({State.FIN_WAIT2, State.CLOSE})


class _Packed:
    """Room for what follows from the fields, and is none of them."""

    __slots__ = ("_packed",)
    _packed: bytes


@dataclass(frozen=True, slots=True)
class Endpoint(_Packed):
    """An address and a port.

    :ivar ip: IPv4 or IPv6 address; an IPv4-mapped IPv6 address is written as the IPv4 address.
    :ivar port: 1 to 65535; 0 in ``Ici.local`` asks ``create`` for any free port.
    """

    ip: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int

    @property
    def packed(self) -> bytes:
        """The address as 4 or 16 bytes; made once, for it is needed a dozen times for a connection."""
        try:
            return self._packed
        except AttributeError:
            object.__setattr__(self, "_packed", self.ip.packed)
            return self._packed

    @property
    def is_link_local(self) -> bool:
        """Whether the address means something on one interface only (IPv6); IPv4 has no such addresses here."""
        return len(self.packed) == 16 and self.ip.is_link_local

    def __hash__(self) -> int:
        return hash((self.packed, self.port))  # a fifth of the time of the address's own hash

    def __str__(self) -> str:
        """Of one without an address too, for the message that says so."""
        ipv6 = isinstance(self.ip, ipaddress.IPv6Address)
        return f"[{self.ip}]:{self.port}" if ipv6 else f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class Negotiated:
    """Fixed by the handshake (paper 4.2).

    :ivar window_scaling: negotiated, and at least one of the shifts is not 0. A connection that negotiated it
        with both shifts 0 behaves in every segment as one that did not, and is described as such:
        TCP_REPAIR_OPTIONS, which is always given the shifts, leaves no difference.
    :ivar snd_wscale: shift of the windows that we receive, 0 to 14.
    :ivar rcv_wscale: shift of the windows that we send, 0 to 14.
    :ivar mss_clamp: largest segment that the peer accepts, bytes; the paper's snd_mss.
    :ivar advmss: largest segment that we announced, bytes; the paper's rcv_mss.
    """

    timestamps: bool
    sack: bool
    window_scaling: bool
    ecn: bool
    snd_wscale: int
    rcv_wscale: int
    mss_clamp: int
    advmss: int


@dataclass(frozen=True, slots=True)
class SendQueue:
    """Bytes written by the application and not yet acknowledged by the peer.

    :ivar sent: from ``snd_una`` to ``snd_nxt``.
    :ivar unsent: from ``snd_nxt`` to ``write_seq``.
    :ivar fin: the application has closed its side; a FIN follows the last byte.
    :ivar fin_sent: that FIN has been sent (it then counts in ``snd_nxt``) and is not acknowledged.
    """

    sent: bytes = b""
    unsent: bytes = b""
    fin: bool = False
    fin_sent: bool = False

    def __repr__(self) -> str:
        """Lengths only: what is in a queue is secret, and may be megabytes; tracebacks and logs show this."""
        return (
            f"SendQueue(sent=<{len(self.sent)} bytes>, unsent=<{len(self.unsent)} bytes>, "
            f"fin={self.fin}, fin_sent={self.fin_sent})"
        )


@dataclass(frozen=True, slots=True)
class ReceiveQueue:
    """Bytes acknowledged to the peer and not yet read by the application.

    :ivar data: from ``copied_seq`` to ``rcv_nxt``.
    :ivar fin: the peer's FIN has been received; it counts in ``rcv_nxt``.
    :ivar shut: the application has called shutdown(SHUT_RD): it reads to the end of what waits, then sees the
        end of the stream. The peer knows nothing of it. Also in states in which both sides have closed.
    """

    data: bytes = b""
    fin: bool = False
    shut: bool = False

    def __repr__(self) -> str:
        """As :meth:`SendQueue.__repr__`."""
        return f"ReceiveQueue(data=<{len(self.data)} bytes>, fin={self.fin}, shut={self.shut})"


@dataclass(frozen=True, slots=True)
class Window:
    """Flow control (paper 4.4), as the kernel's struct tcp_repair_window; bytes, unscaled."""

    snd_wl1: int
    snd_wnd: int
    max_window: int
    rcv_wnd: int
    rcv_wup: int

    def told(self, snd_wscale: int) -> int:
        """The window field with which the peer has told its window, as on the wire."""
        return min(self.snd_wnd >> snd_wscale, 0xFFFF)


@dataclass(frozen=True, slots=True)
class Timestamp:
    """The timestamp clock (paper 4.5, RFC 7323).

    :ivar value: smallest value that the next segment may carry, in ticks; see ``endpoint.get``.
    :ivar microseconds: a tick is 1 us, else 1 ms.
    :ivar ts_recent: the peer's last timestamp, to be echoed, where known, and not older than a minute.
    """

    value: int
    microseconds: bool = False
    ts_recent: int | None = None

    @property
    def echo(self) -> int:
        """What is echoed; 0 where it is not known."""
        return self.ts_recent or 0


@dataclass(frozen=True, slots=True)
class Congestion:
    """Congestion control (paper 5), from TCP_INFO; cwnd and ssthresh in segments, times in us."""

    algorithm: str
    cwnd: int
    ssthresh: int
    srtt_us: int
    rttvar_us: int


@dataclass(frozen=True, slots=True)
class Ici:
    """One TCP endpoint.

    :ivar state: the connection's state.
    :ivar local: our end, :ivar peer: the far end.
    :ivar negotiated: what the handshake fixed.
    :ivar snd_nxt: next sequence number to send, a sent FIN counted.
    :ivar rcv_nxt: next sequence number expected, a received FIN counted.
    :ivar options: socket options by kernel name, e.g. ``{"TCP_NODELAY": 1}``; those that are not at their
        default, and always SO_SNDBUF and SO_RCVBUF as the kernel reports them.
    :ivar timestamp: None when timestamps were not negotiated.
    :ivar ipv6_socket: the socket is AF_INET6; with IPv4 addresses the connection is IPv4-mapped.
    :ivar device: interface the socket is bound to (SO_BINDTODEVICE, or an IPv6 scope), or "".
    :ivar tag: the caller's own name for the connection, not looked at by tcpcp.
    :ivar socket_filter: the program of SO_ATTACH_FILTER, 8 bytes an instruction: code (2), jt, jf (1 each),
        k (4), big-endian; empty for none.
    """

    state: State
    local: Endpoint
    peer: Endpoint
    negotiated: Negotiated
    snd_nxt: int
    rcv_nxt: int
    window: Window
    congestion: Congestion
    timestamp: Timestamp | None = None
    send_queue: SendQueue = SendQueue()
    receive_queue: ReceiveQueue = ReceiveQueue()
    options: dict[str, int] = field(default_factory=dict)
    ipv6_socket: bool = False
    device: str = ""
    tag: int = 0
    version: int = VERSION
    socket_filter: bytes = b""

    def __hash__(self) -> int:
        """Of what tells connections apart; the queues are left out, for to go through them takes long."""
        return hash((self.local, self.peer, self.state, self.snd_nxt, self.rcv_nxt, self.tag))

    def at(self, ip: str | None = None, port: int | None = None) -> Ici:
        """The same connection with another local end, for :func:`tcpcp.create` (paper 2.1).

        :param ip: another local address of the same family; None: as it is.
        :param port: 1 to 65535; 0 for any free port; None: as it is.
        :return: a new ICI. The peer knows nothing of this: packets from the old end to the peer and back
            have to be translated in the network.
        :raises ValueError: *ip* is not an address.
        """
        address = self.local.ip if ip is None else ipaddress.ip_address(ip)
        return replace(self, local=Endpoint(address, self.local.port if port is None else port))

    @property
    def family(self) -> int:
        """Address family of its socket, which for an IPv4 connection may be AF_INET6."""
        return socket.AF_INET6 if self.ipv6_socket else socket.AF_INET

    @property
    def snd_una(self) -> int:
        """Oldest sequence number that the peer has not acknowledged."""
        return seq.add(self.snd_nxt, -len(self.send_queue.sent) - self.send_queue.fin_sent)

    @property
    def write_seq(self) -> int:
        """Sequence number of the next byte that the application writes, or of our FIN if it is queued."""
        return seq.add(self.snd_nxt, len(self.send_queue.unsent) - self.send_queue.fin_sent)

    @property
    def copied_seq(self) -> int:
        """Sequence number of the next byte that the application reads."""
        return seq.add(self.rcv_nxt, -len(self.receive_queue.data) - self.receive_queue.fin)

    def __str__(self) -> str:
        return f"{self.local} - {self.peer}"
