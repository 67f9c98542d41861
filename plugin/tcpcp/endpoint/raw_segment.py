"""Builds one TCP segment as the peer would have sent it, and feeds it to this host's own stack.

The kernel lets a FIN into a receive queue, or an acknowledgement of our FIN, only as a segment that arrives.
The segment is sent by a raw socket with the peer's address as its source; its destination is local, so it
never leaves the host. It carries :data:`tcpcp.endpoint.isolation.MARK` and so passes the filter around the
connection.

:func:`build` is pure; :func:`feed` is the one call.

Source: RFC 9293 section 3.1, RFC 1071; raw(7); CRIU's soccr.c for the idea.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

from tcpcp.endpoint.isolation import MARK
from tcpcp.errors import KernelError, PermissionDenied, Unfed
from tcpcp.kernel import routing, tcp_repair
from tcpcp.record.checksum import checksum
from tcpcp.record.ici import Endpoint

FIN, ACK = 0x01, 0x10
#: What sendto() says of a packet that a filter drops or rejects on its way out.
_FILTERED = frozenset({errno.EPERM, errno.EACCES, errno.ECONNREFUSED})

_TCP = struct.Struct("!HHIIBBHHH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_PSEUDO = struct.Struct("!II")
#: Two NOPs, then kind 8, length 10 (RFC 7323 appendix A).
_TIMESTAMP = struct.Struct("!BBBBII")
_DF = 0x4000
#: Source: netdevice(7).
_SIOCGIFFLAGS, _IFF_UP, _LOOPBACK = 0x8913, 1, "lo"


class Marks(NamedTuple):
    """What of an IP header is its sender's to choose.

    :ivar hops: TTL or hop limit. :ivar traffic_class: TOS or traffic class. :ivar df: IPv4, "don't fragment".
    :ivar flow_label: of IPv6.
    """

    hops: int
    traffic_class: int = 0
    df: bool = False
    flow_label: int = 0


#: For what is fed. The most hops: a socket may have been told to hear nobody who is further away (IP_MINTTL,
#: IPV6_MINHOPCOUNT).
FED = Marks(255)


def build(
    sender: Endpoint,
    receiver: Endpoint,
    *,
    seq: int,
    ack: int,
    flags: int,
    window: int,
    timestamp: tuple[int, int] | None = None,
    marks: Marks = FED,
    data: bytes = b"",
) -> bytes:
    """An IP packet with one TCP segment.

    :param sender: where it claims to come from, :param receiver: where it goes; both of one IP version.
    :param seq: sequence number, :param ack: acknowledgement number, mod 2**32.
    :param flags: :data:`FIN` and :data:`ACK`.
    :param window: the window field as it is on the wire, scaled: 0 to 65535.
    :param timestamp: TSval and TSecr, mod 2**32.
    :param data: of the segment.
    :return: the packet with all checksums filled in.
    """
    options = b"" if timestamp is None else _TIMESTAMP.pack(1, 1, 8, 10, *timestamp)
    offset = _TCP.size + len(options)
    header = (sender.port, receiver.port, seq, ack, offset // 4 << 4, flags, window)
    ip, pseudo = _ip_headers(sender.packed, receiver.packed, offset + len(data), marks)
    sum_ = checksum(pseudo + _TCP.pack(*header, 0, 0) + options + data)
    return ip + _TCP.pack(*header, sum_, 0) + options + data


@lru_cache(256)  # thousands of segments are from one peer to one address
def _ip_headers(source: bytes, destination: bytes, size: int, marks: Marks) -> tuple[bytes, bytes]:
    """The header of a packet with a segment of *size* bytes, and the one that the segment's checksum is of too."""
    pseudo = source + destination + _PSEUDO.pack(size, socket.IPPROTO_TCP)
    if len(source) == 16:
        first = 6 << 28 | marks.traffic_class << 20 | marks.flow_label
        return _IPV6.pack(first, size, socket.IPPROTO_TCP, marks.hops, source, destination), pseudo
    fragment = _DF if marks.df else 0
    fields = (0x45, marks.traffic_class, _IPV4.size + size, 0, fragment, marks.hops, socket.IPPROTO_TCP)
    sum_ = checksum(_IPV4.pack(*fields, 0, source, destination))
    return _IPV4.pack(*fields, sum_, source, destination), pseudo


class _Kept(threading.local):
    """
    :ivar sockets: by family; None outside :func:`keeping`.
    :ivar namespaces: of these sockets, once they were asked for.
    :ivar here: by address and interface: whether what is sent there stays on this host.
    """

    def __init__(self) -> None:
        self.sockets: dict[int, socket.socket] | None = None
        self.namespaces: dict[int, int] = {}
        self.here: dict[tuple[bytes, str], bool] = {}


_kept = _Kept()


@contextmanager
def keeping() -> Iterator[None]:
    """While entered, :func:`feed` makes its sockets, and asks for an address, once.

    This thread stays in its network namespace.
    """
    if _kept.sockets is not None:
        yield
        return
    _kept.sockets, _kept.namespaces, _kept.here = {}, {}, {}
    try:
        yield
    finally:
        sockets, _kept.sockets = _kept.sockets, None
        for one in sockets.values():
            one.close()


def _raw(family: int, packet: bytes) -> socket.socket:
    """One to be closed, or where they are kept the one that is."""
    if _kept.sockets is not None and family in _kept.sockets:
        return _kept.sockets[family]
    try:
        raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
    except PermissionError as exc:
        raise PermissionDenied(f"{_name(packet)}: {exc}; it needs CAP_NET_RAW and CAP_NET_ADMIN") from exc
    except OSError as exc:
        raise KernelError("socket(SOCK_RAW)", exc.errno or errno.EIO, _name(packet)) from exc
    if _kept.sockets is not None:
        _kept.sockets[family] = raw
    return raw


def family(end: Endpoint) -> int:
    """That of the packets from or to *end*."""
    return socket.AF_INET6 if len(end.packed) == 16 else socket.AF_INET


def namespace(family: int) -> int | None:
    """The network namespace whose stack this thread may feed segments to; None: it has not got CAP_NET_RAW.

    While they are kept this makes the socket that :func:`feed` needs for *family*.

    :raises KernelError: there is no descriptor left.
    """
    if _kept.sockets is not None and family in _kept.namespaces:
        return _kept.namespaces[family]
    try:
        raw = _raw(family, b"")
    except PermissionDenied:
        return None
    try:
        found = tcp_repair.get_namespace(raw)
    finally:
        if _kept.sockets is None:
            raw.close()
    if _kept.sockets is not None:
        _kept.namespaces[family] = found
    return found


def stays_here(receiver: Endpoint, device: str = "") -> bool:
    """Whether what :func:`feed` sends to *receiver* is delivered to this host.

    A transparent proxy's connections have the address of a server elsewhere. It would take the segment for the
    peer's, and reset the connection that it does not know.

    :raises KernelError: that cannot be found out.
    """
    if _kept.sockets is None:
        return routing.stays_here(receiver.ip, device, MARK)
    key = receiver.packed, device
    if key not in _kept.here:
        _kept.here[key] = routing.stays_here(receiver.ip, device, MARK)
    return _kept.here[key]


def feed(packet: bytes, receiver: Endpoint, device: str = "") -> None:
    """Send *packet* to the local address *receiver*; it arrives by the loopback interface.

    :param packet: from :func:`build`.
    :param device: interface a link-local address belongs to, or "".
    :raises PermissionDenied: no CAP_NET_RAW.
    :raises Unfed: a packet filter of this host lets it not out, or it would leave this host; nothing was sent.
    :raises KernelError: nothing was sent.

    The kernel handles it in a soft interrupt, in most cases before this returns: wait for its effect.
    """
    if not stays_here(receiver, device):
        raise Unfed(
            f"{_name(packet)}: a segment fed to this host would leave it: {receiver.ip} is no address of its own"
        )
    ipv6 = receiver.ip.version == 6
    raw = _raw(socket.AF_INET6 if ipv6 else socket.AF_INET, packet)
    try:
        if ipv6:
            raw.sendto(packet, (str(receiver.ip), 0, 0, socket.if_nametoindex(device) if device else 0))
        else:
            raw.sendto(packet, (socket.inet_ntoa(receiver.packed), 0))
    except OSError as exc:
        if exc.errno in _FILTERED:
            raise Unfed(
                f"{_name(packet)}: a segment fed to this host was refused by its packet filter;"
                f" let pass, out and in, what has the mark {MARK:#x}"
                f" (iptables -I OUTPUT -m mark --mark {MARK:#x} -j ACCEPT, and INPUT)"
            ) from exc
        raise KernelError("sendto(raw segment)", exc.errno or errno.EIO, _name(packet)) from exc
    finally:
        if _kept.sockets is None:
            raw.close()


def why_lost() -> str:
    """For a message: what may have become of a segment that was fed and does not arrive."""
    request = struct.pack("16s16x", _LOOPBACK.encode())
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            (flags,) = struct.unpack_from("=H", fcntl.ioctl(asking, _SIOCGIFFLAGS, request), 16)
    except OSError:
        flags = _IFF_UP
    if flags & _IFF_UP:
        return (
            f"is there a packet filter that drops it, or a rule that gives packets another mark than {MARK:#x}, by "
            "which they pass the isolation (nft list ruleset: 'meta mark set' in a chain of prerouting or input; "
            "iptables-save: -j MARK, CONNMARK)? Or, for IPv6, an IPsec policy of this host that lets in only what "
            "is encrypted, by lo too; let in what has the mark before (ip xfrm policy add src PEER dst ADDRESS "
            f"dir in mark {MARK:#x} priority 1)"
        )
    return f"the interface {_LOOPBACK} is down: ip link set {_LOOPBACK} up"


def _name(packet: bytes) -> str:
    """The connection of *packet*, from :func:`build`: its receiver is the local end. Before there is one: b""."""
    if not packet:
        return "segments to be fed"
    header, size = (_IPV6, 16) if packet[0] >> 4 == 6 else (_IPV4, 4)
    ips = (packet[header.size - 2 * size : header.size - size], packet[header.size - size : header.size])
    ports = struct.unpack_from("!HH", packet, header.size)
    peer, local = (Endpoint(ipaddress.ip_address(ip), port) for ip, port in zip(ips, ports, strict=True))
    return f"{local} - {peer}"
