"""Tells this host's connection tracking of a connection whose beginning, or what came after it, it has not seen.

It would take the first packet that it sees for the beginning, and that is ours, the one that wakes the peer. So
the connection would be one that this host has begun, with whatever follows: a gateway that masquerades what it
sends takes another of its addresses for it, and the peer resets it; a firewall that lets out what belongs to a
known connection, and nothing new, lets none of it out; with net.netfilter.nf_conntrack_tcp_loose=0 it is invalid.
An entry as the origin had it, of an established connection that the peer has begun, is what conntrackd(8) makes
where a firewall takes over from another.

A host where the connection has lived before has an entry of that time still, for days. Its sequence numbers are
from before what was said elsewhere, so that whatever comes now is invalid to it. No call sets them; but the entry
can be told not to look at them, and to be established whatever it was. It keeps its mark. One that translates
addresses or ports stays as it is: in one direction it has other ends than these, so that it is not found, and in
the other the same, so that no second one is made.

Source: net/netfilter/nf_conntrack_netlink.c ctnetlink_create_conntrack(), ctnetlink_change_conntrack();
nf_conntrack_proto_tcp.c tcp_new(), tcp_in_window(), nf_conntrack_tcp_packet(), nlattr_to_tcp().
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

_NEW, _STATISTICS, _REQUEST = 1 << 8, 1 << 8 | 5, 0x1
_ORIGINAL, _REPLY, _STATUS, _PROTOCOL, _TIMEOUT = 1, 2, 3, 4, 7
_TUPLE_IPS, _TUPLE_PROTOCOL = 1, 2
_NUMBER, _FROM_PORT, _TO_PORT = 1, 2, 3
#: CTA_IP_V4_SRC, _DST; CTA_IP_V6_SRC, _DST; by the length of an address.
_ADDRESSES = {4: (1, 2), 16: (3, 4)}
#: IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED, IPS_SRC_NAT_DONE, IPS_DST_NAT_DONE.
_KNOWN = struct.pack("!I", 1 << 1 | 1 << 2 | 1 << 3 | 1 << 7 | 1 << 8)
#: TCP_CONNTRACK_ESTABLISHED, whatever half is closed; windows are not looked at, as tcp_new() has it: of
#: IP_CT_TCP_FLAG_SACK_PERM, _BE_LIBERAL. Not _CLOSE_INIT, _DATA_UNACKNOWLEDGED, _MAXACK_SET: an entry that was
#: there would end after five minutes of silence for the one, and not heed a reset for the other.
_ESTABLISHED, _LIBERAL = bytes([3]), bytes([0x02 | 0x08, 0x02 | 0x08 | 0x04 | 0x10 | 0x20])
_TCP = nest(1, attribute(1, _ESTABLISHED), attribute(4, _LIBERAL), attribute(5, _LIBERAL))


#: A tuple's two ports: the header of each attribute, its value, two bytes that fill it up.
_PORTS = struct.Struct("=HH2sxxHH2sxx")
_PORT_BYTES = 6


def load(netlink: Netlink) -> None:
    """Have the kernel load what :func:`introduce` needs, where that is a module, which takes long."""
    if is_there():
        with contextlib.suppress(OSError, IsolationError):
            netlink.tell(message(_STATISTICS, _REQUEST, 0, b"", 0, socket.AF_UNSPEC))


def introduce(netlink: Netlink, ends: Iterable[tuple[Endpoint, Endpoint]], *, new: bool = True) -> None:
    """Make entries for connections, in the network namespace of *netlink*; those that are there go on.

    Best effort: where the kernel refuses, tracking meets the connection half-way. It refuses to change an entry
    whose connection was expected by a helper of connection tracking (FTP's data), and one with a fixed timeout.
    What is not used, as in a network namespace that tracks nothing, is gone after a minute. Entries of other zones
    than the usual one are not found.

    :param netlink: not one that is made for this: the kernel lets nobody close a socket of netfilter's while it
        takes apart what was deleted from a table just before, which is up to 30 ms (nft_rcv_nl_event()).
    :param ends: of each the local one and the peer's.
    :param new: False: only for those that have an entry, which is told no more than that it may have missed
        something: whether a packet belongs to a known connection is answered as before.
    """
    messages = [_message(local, peer, new) for local, peer in ends] if is_there() else []
    with contextlib.suppress(OSError, IsolationError):
        for start in range(0, len(messages), _AT_ONCE):
            netlink.tell(b"".join(messages[start : start + _AT_ONCE]))


def is_there() -> bool:
    """Whether the kernel has connection tracking, used here or not."""
    return os.access(_IN_KERNEL, os.F_OK)


def _message(local: Endpoint, peer: Endpoint, new: bool) -> bytes:
    """IPCTNL_MSG_CT_NEW."""
    before, between, behind = _pieces(local.packed, peer.packed, new)
    return b"".join([before, _ports(peer, local), between, _ports(local, peer), behind])


def _ports(sender: Endpoint, receiver: Endpoint) -> bytes:
    source, destination = sender.port.to_bytes(2, "big"), receiver.port.to_bytes(2, "big")
    return _PORTS.pack(_PORT_BYTES, _FROM_PORT, source, _PORT_BYTES, _TO_PORT, destination)


@lru_cache(256)  # thousands of connections are between the same two addresses
def _pieces(local: bytes, peer: bytes, new: bool) -> tuple[bytes, bytes, bytes]:
    """The message about a connection between the two: what is before, between and behind its pairs of ports."""
    original, reply = _tuple(_ORIGINAL, peer, local), _tuple(_REPLY, local, peer)
    behind = nest(_PROTOCOL, _TCP)
    if new:
        behind += attribute(_STATUS, _KNOWN) + attribute(_TIMEOUT, struct.pack("!I", _TIMEOUT_S))
    family = socket.AF_INET if len(local) == 4 else socket.AF_INET6
    flags = _REQUEST | (CREATE if new else 0)
    whole = message(_NEW, flags, 0, original + reply + behind, 0, family)
    before = whole[: len(whole) - len(behind) - len(reply)]
    return before[: -_PORTS.size], reply[: -_PORTS.size], behind


def _tuple(kind: int, sender: bytes, receiver: bytes) -> bytes:
    """With room for the ports at its end."""
    source, destination = _ADDRESSES[len(sender)]
    ips = nest(_TUPLE_IPS, attribute(source, sender), attribute(destination, receiver))
    protocol = attribute(_NUMBER, bytes([socket.IPPROTO_TCP]))
    return nest(kind, ips, nest(_TUPLE_PROTOCOL, protocol, bytes(_PORTS.size)))
