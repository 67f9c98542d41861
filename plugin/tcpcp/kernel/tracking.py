"""Tells this host's connection tracking of a connection whose beginning it has not seen.

It would take the first packet that it sees for the beginning, and that is ours, the one that wakes the peer. So
the connection would be one that this host has begun, with whatever follows: a gateway that masquerades what it
sends takes another of its addresses for it, and the peer resets it; a firewall that lets out what belongs to a
known connection, and nothing new, lets none of it out; with net.netfilter.nf_conntrack_tcp_loose=0 it is invalid.
An entry as the origin had it, of an established connection that the peer has begun, is what conntrackd(8) makes
where a firewall takes over from another.

Source: net/netfilter/nf_conntrack_netlink.c ctnetlink_create_conntrack(); nf_conntrack_proto_tcp.c tcp_new().
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterable

from tcpcp.errors import IsolationError
from tcpcp.kernel import netfilter
from tcpcp.kernel.nft_elements import CREATE, attribute, message
from tcpcp.kernel.nft_rules import nest
from tcpcp.record.ici import Endpoint

#: It is there where the kernel has connection tracking, whether this network namespace uses it or not.
_IN_KERNEL = "/proc/sys/net/netfilter/nf_conntrack_count"
#: For how long the entry is there; each packet that is tracked starts the time anew, as long as its state has it.
_TIMEOUT_S = 60
_AT_ONCE = 200

_NEW, _REQUEST, _EXCLUSIVE = 1 << 8, 0x1, 0x200
_ORIGINAL, _REPLY, _STATUS, _PROTOCOL, _TIMEOUT = 1, 2, 3, 4, 7
_TUPLE_IPS, _TUPLE_PROTOCOL = 1, 2
_NUMBER, _FROM_PORT, _TO_PORT = 1, 2, 3
#: CTA_IP_V4_SRC, _DST; CTA_IP_V6_SRC, _DST; by the length of an address.
_ADDRESSES = {4: (1, 2), 16: (3, 4)}
#: IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED, IPS_SRC_NAT_DONE, IPS_DST_NAT_DONE.
_KNOWN = struct.pack("!I", 1 << 1 | 1 << 2 | 1 << 3 | 1 << 7 | 1 << 8)
#: TCP_CONNTRACK_ESTABLISHED, whatever half is closed; windows are not looked at, as tcp_new() has it.
_ESTABLISHED, _LIBERAL = bytes([3]), bytes([0x0A, 0x0A])
_TCP = nest(1, attribute(1, _ESTABLISHED), attribute(4, _LIBERAL), attribute(5, _LIBERAL))


def introduce(ends: Iterable[tuple[Endpoint, Endpoint]]) -> None:
    """Make entries for connections, in the calling thread's network namespace; those that are there stay.

    Best effort: where the kernel refuses, tracking meets the connection half-way. What is not used, as in a
    network namespace that tracks nothing, is gone after a minute.

    :param ends: of each the local one and the peer's.
    """
    messages = [_new(local, peer) for local, peer in ends] if os.access(_IN_KERNEL, os.F_OK) else []
    if messages:
        with contextlib.suppress(OSError, IsolationError), netfilter.connect() as netlink:
            for start in range(0, len(messages), _AT_ONCE):
                netlink.send(b"".join(messages[start : start + _AT_ONCE]))


def _new(local: Endpoint, peer: Endpoint) -> bytes:
    """IPCTNL_MSG_CT_NEW."""
    family = socket.AF_INET if len(local.packed) == 4 else socket.AF_INET6
    body = (
        _tuple(_ORIGINAL, peer, local)
        + _tuple(_REPLY, local, peer)
        + attribute(_STATUS, _KNOWN)
        + nest(_PROTOCOL, _TCP)
        + attribute(_TIMEOUT, struct.pack("!I", _TIMEOUT_S))
    )
    return message(_NEW, _REQUEST | CREATE | _EXCLUSIVE, 0, body, 0, family)


def _tuple(kind: int, sender: Endpoint, receiver: Endpoint) -> bytes:
    source, destination = _ADDRESSES[len(sender.packed)]
    ips = nest(_TUPLE_IPS, attribute(source, sender.packed), attribute(destination, receiver.packed))
    ports = nest(
        _TUPLE_PROTOCOL,
        attribute(_NUMBER, bytes([socket.IPPROTO_TCP])),
        attribute(_FROM_PORT, struct.pack("!H", sender.port)),
        attribute(_TO_PORT, struct.pack("!H", receiver.port)),
    )
    return nest(kind, ips, ports)
