"""Connections that this host translates: addresses (DNAT, redirect, masquerading), sequence numbers (SYNPROXY).

The translation is an entry of this host's connection tracking, and no other host knows of it: the first packet from
there would go out as it is, and the peer, which knows another address or port, would answer with a reset. A peer
that knows other sequence numbers would take it for one of long ago, and both repeat themselves until they give up.

The kernel is asked for each connection by both of its ends; it knows the entry by either of its directions.
Source: net/netfilter/nf_conntrack_netlink.c ctnetlink_get_conntrack(); enum ip_conntrack_status;
nf_conntrack_seqadj.c nf_ct_seqadj_init().
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from migrate.errors import MigrateError
from migrate.inventory.ports import is_connection, name, text
from migrate.pb.session_pb2 import TcpSocket
from tcpcp.endpoint.isolation import Flow
from tcpcp.errors import KernelError
from tcpcp.kernel import diag, netfilter
from tcpcp.kernel.nft_elements import attribute
from tcpcp.kernel.nft_rules import nest
from tcpcp.record.ici import State

_CT_GET = 1 << 8 | 1
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_HEADER = struct.Struct("=IHHII")
#: struct nfgenmsg: family, version, resource.
_GENERAL = struct.Struct("=BBH")
_NUMBER = struct.Struct("=i")

_TUPLE_ORIG, _TUPLE_REPLY, _STATUS = 1, 2, 3
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_V4, _V6 = (1, 2), (3, 4)
_PROTO_NUMBER, _PROTO_FROM, _PROTO_TO = 1, 2, 3
#: What a user can do about a connection that comes by a translation of addresses.
REMEDY = (
    "Have its clients use the address and port that the program itself has (for a port below 1024: sysctl"
    " net.ipv4.ip_unprivileged_port_start), and try again when those that came by the translation have ended."
)
#: What is said of one whose numbers are translated, and what can be done about it.
NUMBERS = "one with other sequence numbers"
NUMBERS_REMEDY = (
    "Take SYNPROXY from the program's port on this host (on a gateway in front it does no harm), and try again when"
    " the connections that came by it have ended."
)
#: By a word of the problem.
REMEDIES = ((NUMBERS, NUMBERS_REMEDY), ("translated", REMEDY))
#: IPS_SRC_NAT | IPS_DST_NAT: the addresses or ports of the two directions differ.
_TRANSLATED = 1 << 4 | 1 << 5
#: IPS_SEQ_ADJUST. A helper of connection tracking that changes what is said (FTP's) changes addresses as well.
_ADJUSTED = 1 << 6

_COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")


def find(sockets: Iterable[TcpSocket]) -> Iterator[tuple[TcpSocket, str]]:
    """Yield the connections that are translated, and what they are on the way: other ends, or :data:`NUMBERS`.

    :param sockets: of this host, their addresses IPv4-mapped no more.
    :raises KernelError: connection tracking is in use here, and cannot be asked.
    """
    if not _in_use():
        return
    with _opened() as netlink:
        for one in sockets:
            if is_connection(one) and (other := _asked(netlink, one)):
                yield one, other


def require_none(flows: Iterable[Flow], known: Iterable[TcpSocket]) -> None:
    """Make sure that none of *flows* is translated that is not one of *known*, which were looked at before.

    :raises MigrateError: one is.
    """
    old = {(one.local_ip, one.local_port, one.peer_ip, one.peer_port) for one in known}
    new = (_socket(flow) for flow in flows)
    for one, other in find(n for n in new if (n.local_ip, n.local_port, n.peer_ip, n.peer_port) not in old):
        hint = NUMBERS_REMEDY if other == NUMBERS else REMEDY
        raise MigrateError(f"{words(one, other)}; it has come since the check", hint=hint)


def words(one: TcpSocket, other: str) -> str:
    """What is told of *one*."""
    return f"{name(one)}: translated by this host, on the way it is {other}; the destination would not know"


def _socket(flow: Flow) -> TcpSocket:
    return TcpSocket(
        state=State.ESTABLISHED,
        local_ip=flow.local.ip.packed,
        local_port=flow.local.port,
        peer_ip=flow.peer.ip.packed,
        peer_port=flow.peer.port,
    )


def _in_use() -> bool:
    """Whether this network namespace tracks any connection."""
    try:
        return int(_COUNT.read_text()) > 0
    except OSError:
        return False  # not loaded


def _opened() -> socket.socket:
    try:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netfilter.PROTOCOL)
    except OSError as error:
        raise KernelError("socket(NETLINK_NETFILTER)", error.errno or errno.EIO) from None


def _asked(netlink: socket.socket, one: TcpSocket) -> str:
    """The other name of *one*, "" when it is not translated, or not tracked."""
    netlink.send(question(one))
    answer = netlink.recv(1 << 16)
    kind = _HEADER.unpack_from(answer)[1]
    if kind == _NLMSG_ERROR:
        number = -_NUMBER.unpack_from(answer, _HEADER.size)[0]
        if number in (0, errno.ENOENT):
            return ""
        raise KernelError("connection tracking cannot be asked (modprobe nf_conntrack_netlink)", number)
    return other_name(answer, one)


def question(one: TcpSocket) -> bytes:
    """IPCTNL_MSG_CT_GET for the entry with these ends."""
    source, destination = _V4 if len(one.local_ip) == 4 else _V6
    ends = nest(_TUPLE_IP, attribute(source, one.local_ip) + attribute(destination, one.peer_ip))
    ports = (
        attribute(_PROTO_NUMBER, bytes([socket.IPPROTO_TCP]))
        + attribute(_PROTO_FROM, one.local_port.to_bytes(2, "big"))
        + attribute(_PROTO_TO, one.peer_port.to_bytes(2, "big"))
    )
    family = socket.AF_INET if len(one.local_ip) == 4 else socket.AF_INET6
    body = _GENERAL.pack(family, 0, 0) + nest(_TUPLE_ORIG, ends + nest(_TUPLE_PROTO, ports))
    return _HEADER.pack(_HEADER.size + len(body), _CT_GET, _NLM_F_REQUEST, 1, 0) + body


def other_name(answer: bytes, one: TcpSocket) -> str:
    """What an entry says of *one*: how its ends are called on the way, or of its numbers; "" when as here."""
    begin = _HEADER.size + _GENERAL.size
    found = dict(diag.attributes(answer, begin, min(len(answer), _HEADER.unpack_from(answer)[0])))
    status = int.from_bytes(found.get(_STATUS, b""), "big")
    if not status & _TRANSLATED:
        return NUMBERS if status & _ADJUSTED else ""
    tuples = [_ends(found.get(kind, b"")) for kind in (_TUPLE_ORIG, _TUPLE_REPLY)]
    ours = text(one.local_ip, one.local_port), text(one.peer_ip, one.peer_port)
    # The direction that we sent, or receive, is as the socket has it; the other one is as the network has it.
    others = [ends for ends in tuples if ends not in (ours, ours[::-1])]
    return " - ".join(others[0]) if others else "another name"


def _ends(value: bytes) -> tuple[str, str]:
    parts = dict(diag.attributes(value, 0, len(value)))
    ip, proto = (_inner(parts.get(kind, b"")) for kind in (_TUPLE_IP, _TUPLE_PROTO))
    source, destination = (ip.get(a) or ip.get(b) or b"" for a, b in zip(_V4, _V6, strict=True))
    return _end(source, proto.get(_PROTO_FROM)), _end(destination, proto.get(_PROTO_TO))


def _inner(value: bytes) -> dict[int, bytes]:
    return dict(diag.attributes(value, 0, len(value)))


def _end(ip: bytes, port: bytes | None) -> str:
    if len(ip) not in (4, 16):
        return "?"
    return text(ipaddress.ip_address(ip).packed, int.from_bytes(port or b"", "big"))
