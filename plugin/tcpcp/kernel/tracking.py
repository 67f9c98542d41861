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
from functools import lru_cache

from tcpcp.errors import IsolationError
from tcpcp.kernel.netfilter import Netlink
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


#: A tuple's two ports: the header of each attribute, its value, two bytes that fill it up.
_PORTS = struct.Struct("=HH2sxxHH2sxx")
_PORT_BYTES = 6


def introduce(netlink: Netlink, ends: Iterable[tuple[Endpoint, Endpoint]]) -> None:
    """Make entries for connections, in the network namespace of *netlink*; those that are there stay.

    Best effort: where the kernel refuses, tracking meets the connection half-way. What is not used, as in a
    network namespace that tracks nothing, is gone after a minute.

    :param netlink: not one that is made for this: the kernel lets nobody close a socket of netfilter's while it
        takes apart what was deleted from a table just before, which is up to 30 ms (nft_rcv_nl_event()).
    :param ends: of each the local one and the peer's.
    """
    messages = [_new(local, peer) for local, peer in ends] if os.access(_IN_KERNEL, os.F_OK) else []
    with contextlib.suppress(OSError, IsolationError):
        for start in range(0, len(messages), _AT_ONCE):
            netlink.tell(b"".join(messages[start : start + _AT_ONCE]))


def _new(local: Endpoint, peer: Endpoint) -> bytes:
    """IPCTNL_MSG_CT_NEW."""
    before, between, behind = _pieces(local.packed, peer.packed)
    return b"".join([before, _ports(peer, local), between, _ports(local, peer), behind])


def _ports(sender: Endpoint, receiver: Endpoint) -> bytes:
    source, destination = sender.port.to_bytes(2, "big"), receiver.port.to_bytes(2, "big")
    return _PORTS.pack(_PORT_BYTES, _FROM_PORT, source, _PORT_BYTES, _TO_PORT, destination)


@lru_cache(256)  # thousands of connections are between the same two addresses
def _pieces(local: bytes, peer: bytes) -> tuple[bytes, bytes, bytes]:
    """The message about a connection between the two: what is before, between and behind its pairs of ports."""
    original, reply = _tuple(_ORIGINAL, peer, local), _tuple(_REPLY, local, peer)
    behind = (
        attribute(_STATUS, _KNOWN)
        + nest(_PROTOCOL, _TCP)
        + attribute(_TIMEOUT, struct.pack("!I", _TIMEOUT_S))
    )
    family = socket.AF_INET if len(local) == 4 else socket.AF_INET6
    whole = message(_NEW, _REQUEST | CREATE | _EXCLUSIVE, 0, original + reply + behind, 0, family)
    before = whole[: len(whole) - len(behind) - len(reply)]
    return before[: -_PORTS.size], reply[: -_PORTS.size], behind


def _tuple(kind: int, sender: bytes, receiver: bytes) -> bytes:
    """With room for the ports at its end."""
    source, destination = _ADDRESSES[len(sender)]
    ips = nest(_TUPLE_IPS, attribute(source, sender), attribute(destination, receiver))
    protocol = attribute(_NUMBER, bytes([socket.IPPROTO_TCP]))
    return nest(kind, ips, nest(_TUPLE_PROTOCOL, protocol, bytes(_PORTS.size)))
