"""What either host's packet filter does for connections that are forwarded, in the language of nft(8). Pure.

How long the kernel keeps a connection in mind follows what its connection tracking does with one
(net/netfilter/nf_conntrack_proto_tcp.c tcp_timeouts[]): five days after the last packet of one that lives, some
minutes after the last one when an end of it was seen: the last acknowledgement may get lost, a half of it may live.

Source: nft(8); net/netfilter/nft_fwd_netdev.c: what is sent on leaves as it came, but with a TTL less one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from migrate.errors import SwitchError
from tcpcp.endpoint.isolation import MARK, Flow

#: What the tables of a forward are called; the migration's ID behind it.
PREFIX = "migrate-forward-"
#: After the last packet of a connection, as nft writes times.
LIVES, ENDED = "5d", "10m"
#: In the mark of a packet for a socket that is transparent: upper half; the lower one is somebody else's.
FOUND, FOUND_MASK = 0x4D46_0000, 0xFFFF_0000
_ID = re.compile(r"[0-9a-f]{12}")
_TYPE = "type ipv4_addr . inet_service . ipv4_addr . inet_service"
_THERE = "ip daddr . tcp dport . ip saddr . tcp sport"
_BACK = "ip saddr . tcp sport . ip daddr . tcp dport"
#: The same ends in the packet that an ICMP error quotes, which is one that we sent, without options.
_QUOTED = "@th,160,32 . @th,224,16 . @th,192,32 . @th,240,16"


def name(migration_id: str) -> str:
    """Of the tables of a forward. :raises SwitchError: that is no migration's ID."""
    if not _ID.fullmatch(migration_id):
        raise SwitchError("not a migration's id")
    return f"{PREFIX}{migration_id}"


def deletion(family: str, migration_id: str) -> str:
    """Delete such a table, whether it is there or not."""
    table = f"{family} {name(migration_id)}"
    return f"add table {table}\ndelete table {table}"


def at_origin(
    migration_id: str,
    device: str,
    via: str,
    flows: Sequence[Flow],
    hops: Mapping[str, str],
    reserved: Iterable[int],
) -> str:
    """All of it at the origin: what comes by *device* goes on to *via*, and what comes back to the peer's next hop.

    :param hops: the next hop of each peer, itself if it is a neighbour.
    :param reserved: local ports that were reserved for it, to be remembered.
    """
    table = f"netdev {name(migration_id)}"
    return "\n".join(
        [
            f'add table {table} {{ comment "to {via}"; }}',
            f"add counter {table} there",
            f"add counter {table} back",
            f"add set {table} flows {{ {_TYPE}; size {_size(flows)}; flags dynamic,timeout; }}",
            f"add set {table} ended {{ {_TYPE}; size {_size(flows)}; flags dynamic,timeout; }}",
            f"add set {table} home {{ {_TYPE}; }}",
            f"add set {table} quoted {{ typeof {_QUOTED}; }}",
            f"add map {table} hops {{ type ipv4_addr : ipv4_addr; }}",
            f"add set {table} reserved {{ type inet_service; }}",
            f'add chain {table} in {{ type filter hook ingress device "{device}" priority -500; policy accept; }}',
            *_sending_on(table, "there", _THERE, f'fwd ip to {via} device "{device}"'),
            *_sending_on(table, "back", _BACK, f'fwd ip to ip daddr map @hops device "{device}"'),
            f"add rule {table} in {_THERE} @home accept",
            f"add rule {table} in {_THERE} @flows goto there",
            f"add rule {table} in {_BACK} @flows goto back",
            f"add rule {table} in icmp type destination-unreachable {_QUOTED} @quoted"
            f' counter name there fwd ip to {via} device "{device}"',
            *_elements(table, "flows", (f"{_ends(one)} timeout {LIVES}" for one in flows)),
            *_elements(table, "quoted", map(_numbers, flows)),
            *_elements(table, "hops", (f"{peer} : {hop}" for peer, hop in hops.items())),
            *_elements(table, "reserved", map(str, reserved)),
        ]
    )


def _sending_on(table: str, chain: str, ends: str, verdict: str) -> list[str]:
    """A chain for packets of one direction: their connection is kept in mind, and they are sent on."""

    def kept(set_: str, how_long: str) -> str:
        return f"update @{set_} {{ {ends} timeout {how_long} }}"

    counted = f"counter name {chain} {verdict}"
    return [
        f"add chain {table} {chain}",
        f"add rule {table} {chain} tcp flags & (fin|rst) != 0 {kept('ended', ENDED)}",
        f"add rule {table} {chain} {ends} @ended {kept('ended', ENDED)} {kept('flows', ENDED)} {counted}",
        f"add rule {table} {chain} {kept('flows', LIVES)} {counted}",
    ]


def at_destination(migration_id: str, own: Iterable[str], flows: Sequence[Flow]) -> str:
    """All of it on the destination: packets find their sockets; those of one that is gone draw a reset.

    Behind the filter that drops them as long as the process is not given away. What is fed to a socket by this host
    has a mark of its own, and keeps it.
    """
    table = f"inet {name(migration_id)}"
    found = f"meta mark set meta mark & {FOUND_MASK ^ 0xFFFFFFFF:#010x} | {FOUND:#010x}"
    return "\n".join(
        [
            f"add table {table}",
            f"add set {table} own {{ type ipv4_addr; }}",
            f"add set {table} flows {{ {_TYPE}; size {_size(flows)}; flags dynamic,timeout; }}",
            f"add chain {table} gone",
            f"add rule {table} gone tcp flags & rst == 0 reject with tcp reset",
            f"add rule {table} gone drop",
            f"add chain {table} in {{ type filter hook prerouting priority -290; policy accept; }}",
            f"add rule {table} in meta mark {MARK:#x} accept",
            f"add rule {table} in {_THERE} @flows update @flows {{ {_THERE} timeout {LIVES} }}",
            f"add rule {table} in ip daddr @own meta l4proto {{ tcp, icmp }} socket transparent 1 {found} accept",
            f"add rule {table} in {_THERE} @flows jump gone",
            *_elements(table, "own", own),
            *_elements(table, "flows", (f"{_ends(one)} timeout {LIVES}" for one in flows)),
        ]
    )


def at_home(migration_id: str, flows: Sequence[Flow]) -> str:
    """At the origin of that forward: *flows* are this host's again, as long as they are in a set of their own."""
    return "\n".join(_elements(f"netdev {name(migration_id)}", "home", map(_ends, flows)))


def away(migration_id: str) -> str:
    """They are forwarded again: undoes :func:`at_home`."""
    return f"flush set netdev {name(migration_id)} home"


def forgotten(family: str, migration_id: str, flows: Sequence[Flow]) -> str:
    """A host forgets *flows*, which that forward has."""
    table = f"{family} {name(migration_id)}"
    told = [("flows", ", ".join(map(_ends, flows)))]
    if family == "netdev":
        told.append(("quoted", ", ".join(map(_numbers, flows))))
    return "\n".join(f"delete element {table} {set_} {{ {ends} }}" for set_, ends in told)


def _size(flows: Sequence[Flow]) -> int:
    """A set that is changed by packets has to have one."""
    return max(len(flows), 1)


def _elements(table: str, set_: str, elements: Iterable[str]) -> list[str]:
    told = ", ".join(elements)
    return [f"add element {table} {set_} {{ {told} }}"] if told else []


def _ends(one: Flow) -> str:
    return f"{one.local.ip} . {one.local.port} . {one.peer.ip} . {one.peer.port}"


def _numbers(one: Flow) -> str:
    local, peer = one.local, one.peer
    return f"{int(local.ip):#x} . {local.port} . {int(peer.ip):#x} . {peer.port}"
