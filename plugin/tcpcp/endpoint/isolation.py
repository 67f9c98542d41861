"""The packet filter that isolates connections: nothing of them arrives, nothing leaves (paper section 2).

Repair mode does not isolate: a segment that arrives still moves ``rcv_nxt`` and is acknowledged. And after
the socket is gone, the filter is what keeps the host from answering a late segment with a reset. So the
filter is made before a connection is read and outlives its sockets.

One table ``inet tcpcp-NAME`` for each :class:`Isolation`. Why it looks as it does:

- Hook *input*, not *prerouting*: there the addresses are those of the socket whatever NAT did, fragments
  are reassembled, packets that this host merely forwards (to the destination, once it owns the address)
  go through, and each packet goes straight from the hook into TCP, so that after a change of rules at most
  one packet for each processor is still under way (prerouting sees whole NAPI batches first:
  net/ipv4/ip_input.c ip_list_rcv(), ip_local_deliver()).
- Hook *output* answers the sender's drop with EPERM, so TCP does not count what it could not send as sent
  (net/ipv4/tcp_output.c tcp_write_xmit()): an isolated connection's ``snd_nxt`` does not move.
- One element with a timeout, in the set ``armed``, holds the whole table in force. If we die, the rules let
  everything through when it expires; to postpone this for 5000 connections is to renew one element.
- Packets with mark 0xC114 pass: the FIN that CRIU and we feed to a half-closed socket. Connection tracking does
  not see them: they leave by the loopback interface with the peer's address, and the first packet of a
  connection decides how all the others are translated. A host that masquerades (kube-proxy does what has the
  bit 0x4000 in its mark, a VPN's gateway its clients) would take what the peer sends for somebody else's, and
  reset it. The hook's priority is before that of tracking, -200, and what is not tracked on its way out is not
  either on its way in (net/netfilter/nf_conntrack_core.c nf_conntrack_in()).
- Only TCP is looked at.
- The set ``inside`` has an element while programs of this host may connect although SYNs are dropped: their packets
  come by the loopback interface, and it is for whoever waits for a program that connects to itself.

Source: nft(8); net/netfilter/nf_tables_api.c; CRIU's soccr.h for the mark.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from tcpcp.errors import IsolationError
from tcpcp.kernel import netfilter, nft
from tcpcp.kernel.nft_elements import FLOW_KEY_BYTES, flow_key
from tcpcp.record.ici import Endpoint

PREFIX = "tcpcp-"
#: Of the tables of :mod:`tcpcp.endpoint.flow_table` and :mod:`tcpcp.endpoint.new_connections`.
OWN_PREFIX = "tcpcp_"
#: Mark of packets that pass the filter; the same as CRIU's SOCCR_MARK.
MARK = 0xC114
#: How long a filter holds when nobody renews it.
TIMEOUT_S = 60

#: The element of the sets "armed" and "inside".
_TCP = bytes([socket.IPPROTO_TCP])

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class _Key:
    """Room for what follows from the fields, and is none of them."""

    __slots__ = ("_key",)
    _key: bytes


@dataclass(frozen=True, slots=True)
class Flow(_Key):
    """One connection as this host sees it."""

    local: Endpoint
    peer: Endpoint

    @property
    def key(self) -> bytes:
        """In a set of the filter; made once, for a connection that is passed is looked up five times."""
        try:
            return self._key
        except AttributeError:
            local, peer = self.local, self.peer
            key = flow_key(local.packed, local.port, peer.packed, peer.port)
            object.__setattr__(self, "_key", key)
            return key

    def __hash__(self) -> int:
        return hash((self.local.port, self.peer.port))  # these tell nearly all apart, in a tenth of the time

    def __str__(self) -> str:
        return f"{self.local} - {self.peer}"


_UNTRACKED = "notrack"
_RULES = """
add set {t} armed {{ type inet_proto; flags timeout; }}
add set {t} flows4 {{ type ipv4_addr . inet_service . ipv4_addr . inet_service; }}
add set {t} flows6 {{ type ipv6_addr . inet_service . ipv6_addr . inet_service; }}
add set {t} pass4 {{ type ipv4_addr . inet_service . ipv4_addr . inet_service; }}
add set {t} pass6 {{ type ipv6_addr . inet_service . ipv6_addr . inet_service; }}
add set {t} listeners4 {{ type ipv4_addr . inet_service; }}
add set {t} listeners6 {{ type ipv6_addr . inet_service; }}
add set {t} wildcards4 {{ type inet_service; }}
add set {t} wildcards6 {{ type inet_service; }}
add set {t} syn4 {{ type ipv4_addr . inet_service; }}
add set {t} syn6 {{ type ipv6_addr . inet_service; }}
add set {t} wildsyn4 {{ type inet_service; }}
add set {t} wildsyn6 {{ type inet_service; }}
add set {t} inside {{ type inet_proto; }}
add chain {t} syns
add rule {t} syns meta iiftype loopback meta l4proto @inside return
add rule {t} syns ip daddr . tcp dport @syn4 drop
add rule {t} syns ip6 daddr . tcp dport @syn6 drop
add rule {t} syns meta nfproto ipv4 tcp dport @wildsyn4 drop
add rule {t} syns meta nfproto ipv6 tcp dport @wildsyn6 drop
add chain {t} input {{ type filter hook input priority -300; policy accept; }}
add rule {t} input meta l4proto != @armed accept
add rule {t} input meta mark {mark} accept
add rule {t} input ip daddr . tcp dport . ip saddr . tcp sport @flows4 drop
add rule {t} input ip6 daddr . tcp dport . ip6 saddr . tcp sport @flows6 drop
add rule {t} input tcp flags & (fin | syn | rst | ack) == syn jump syns
add rule {t} input ip daddr . tcp dport . ip saddr . tcp sport @pass4 accept
add rule {t} input ip6 daddr . tcp dport . ip6 saddr . tcp sport @pass6 accept
add rule {t} input ip daddr . tcp dport @listeners4 drop
add rule {t} input ip6 daddr . tcp dport @listeners6 drop
add rule {t} input meta nfproto ipv4 tcp dport @wildcards4 drop
add rule {t} input meta nfproto ipv6 tcp dport @wildcards6 drop
add chain {t} output {{ type filter hook output priority -300; policy accept; }}
add rule {t} output meta l4proto != @armed accept
add rule {t} output meta mark {mark} {untracked} accept
add rule {t} output ip saddr . tcp sport . ip daddr . tcp dport @flows4 drop
add rule {t} output ip6 saddr . tcp sport . ip6 daddr . tcp dport @flows6 drop
add rule {t} output ip saddr . tcp sport . ip daddr . tcp dport @pass4 accept
add rule {t} output ip6 saddr . tcp sport . ip6 daddr . tcp dport @pass6 accept
add rule {t} output ip saddr . tcp sport @listeners4 drop
add rule {t} output ip6 saddr . tcp sport @listeners6 drop
add rule {t} output meta nfproto ipv4 tcp sport @wildcards4 drop
add rule {t} output meta nfproto ipv6 tcp sport @wildcards6 drop
"""


class Isolation:
    """The filter around a set of connections, in the network namespace of the caller.

    :param name: letters, digits and ``_.-``, unique on this host among all filters in force.
    :param timeout_s: whole seconds after which the filter lets everything through, counted from the last
        :meth:`hold` or :meth:`refresh`.
    :raises ValueError: a name that nft could misread, or a timeout below 1.

    Nothing is changed before :meth:`prepare` or :meth:`hold`. Every change is one batch: it is in force whole
    or not at all. All methods raise :class:`IsolationError`.
    """

    def __init__(self, name: str, *, timeout_s: int = TIMEOUT_S) -> None:
        self.table = _table(name)
        if timeout_s < 1:
            raise ValueError(f"timeout_s must be at least 1, not {timeout_s}")
        self.name = name
        self.timeout_s = int(timeout_s)
        self._prepared = False

    def prepare(self) -> None:
        """Make the table, holding nothing; :meth:`hold` then takes 1 us for a connection and little else.

        What a filter of this name held before is let through.
        """
        rules = _RULES.format(t=self.table, mark=MARK, untracked=_UNTRACKED)
        anew = f"add table {self.table}\ndelete table {self.table}\nadd table {self.table}\n"
        try:
            nft.run(f"create table {self.table}\n{rules}")  # refuses a table that exists
        except IsolationError:
            try:
                nft.run(anew + rules)
            except IsolationError:  # a kernel that does not know of tracking
                nft.run(anew + _RULES.format(t=self.table, mark=MARK, untracked=""))
        self._prepared = True

    def hold(
        self,
        flows: Iterable[Flow] = (),
        listeners: Iterable[Endpoint] = (),
        *,
        syn_only: bool = False,
        except_flows: Iterable[Flow] = (),
    ) -> None:
        """Isolate all of *flows* and *listeners* at once; what this object held before stays held.

        :param flows: connections; both directions are dropped.
        :param listeners: where listening sockets are bound; the address 0.0.0.0 or :: stands for every
            address of that family (a dual-stack socket needs both). Everything to and from them is
            dropped, so that neither SYN-ACK nor reset answers, not even for connections unknown here.
        :param syn_only: drop only the first SYN of new connections to *listeners*; handshakes under way
            and established connections go on. The phase in which the accept queue is drained.
        :param except_flows: connections of a held listener's port that stay here and go on.

        Once this returns, at most one packet for each processor is still being delivered;
        :func:`tcpcp.endpoint.reader.read_many` looks for those.
        """
        if not self._prepared:
            self.prepare()
        self.add(flows, listeners, syn_only=syn_only, except_flows=except_flows)
        self.refresh()  # a filter that was only prepared comes into force here, as a whole

    def add(
        self,
        flows: Iterable[Flow] = (),
        listeners: Iterable[Endpoint] = (),
        *,
        syn_only: bool = False,
        except_flows: Iterable[Flow] = (),
    ) -> None:
        """As :meth:`hold`, on a filter that holds already; its timeout is not renewed."""
        nft.change_elements("add", self.table_name, _sets(flows, listeners, syn_only, except_flows))

    def let_inside(self, *, connect: bool) -> None:
        """Let programs of this host connect to listeners whose SYNs are held (*syn_only*), or hold theirs, too.

        At first these are held. The filter must be prepared.

        :raises IsolationError: nothing has changed; to hold them when they are held is an error, too.
        """
        nft.change_elements("add" if connect else "delete", self.table_name, {"inside": [_TCP]})

    def refresh(self) -> None:
        """Start the timeout anew. Brings a filter that has expired, but was not removed, into force again."""
        nft.run(f"flush set {self.table} armed\n{self._arm(self.timeout_s)}")

    def in_force(self) -> bool:
        """Whether it holds now: it was told to, has not expired, and nobody has removed it."""
        return nft.has_element(self.table_name, "armed", _TCP)

    def keep(self) -> None:
        """Hold without limit, until :meth:`release` or :meth:`refresh`."""
        nft.run(f"flush set {self.table} armed\n{self._arm(None)}")

    def release(self) -> None:
        """Remove the filter. Nothing happens when there is none."""
        remove(self.name)
        self._prepared = False

    def _arm(self, timeout_s: int | None) -> str:
        timeout = "" if timeout_s is None else f" timeout {timeout_s}s"
        return f"add element {self.table} armed {{ tcp{timeout} }}"

    @property
    def table_name(self) -> str:
        return f"{PREFIX}{self.name}"


def remove(name: str) -> None:
    """Remove the filter *name*, whoever made it. Nothing happens when there is none.

    :raises IsolationError: the filter is as it was.
    """
    table = _table(name)
    nft.run(f"add table {table}\ndelete table {table}")  # nft has no "delete if it exists" before 1.0.8


def held_at(name: str) -> set[Endpoint]:
    """The local ends of which the filter *name* holds everything; empty when there is none.

    :raises IsolationError: the kernel does not tell.
    """
    return {
        Endpoint(ip(key[:size]), int.from_bytes(key[size : size + 2], "big"))
        for ip, size, version in ((IPv4Address, 4, 4), (IPv6Address, 16, 6))
        for key in netfilter.keys(f"{PREFIX}{name}", f"listeners{version}")
    }


def tables() -> list[str]:
    """Names of the library's own tables in this network namespace, of whatever process.

    They are :mod:`tcpcp.endpoint.flow_table`'s and :mod:`tcpcp.endpoint.new_connections`'.
    """
    return [one.name for one in netfilter.tables() if one.name.startswith(OWN_PREFIX)]


def _table(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a name for a filter: {name!r}")
    return f"inet {PREFIX}{name}"


def _sets(
    flows: Iterable[Flow], listeners: Iterable[Endpoint], syn_only: bool, except_flows: Iterable[Flow]
) -> dict[str, list[bytes]]:
    return {
        **flow_sets("flows", flows),
        **flow_sets("pass", except_flows),
        **_listener_sets(listeners, syn_only),
    }


def flow_sets(kind: str, flows: Iterable[Flow]) -> dict[str, list[bytes]]:
    """The keys of *flows* in the sets *kind*4 and *kind*6."""
    sets: dict[str, list[bytes]] = {f"{kind}4": [], f"{kind}6": []}
    by_size = {FLOW_KEY_BYTES[4]: sets[f"{kind}4"].append, FLOW_KEY_BYTES[6]: sets[f"{kind}6"].append}
    for flow in flows:
        key = flow.key
        by_size[len(key)](key)
    return sets


def _listener_sets(listeners: Iterable[Endpoint], syn_only: bool) -> dict[str, list[bytes]]:
    sets: dict[str, list[bytes]] = {}
    bound, wildcard = ("syn", "wildsyn") if syn_only else ("listeners", "wildcards")
    for local in listeners:
        port = struct.pack("!H", local.port)
        if local.ip.is_unspecified:
            sets.setdefault(f"{wildcard}{local.ip.version}", []).append(port)
        else:
            sets.setdefault(f"{bound}{local.ip.version}", []).append(local.ip.packed + port + b"\0\0")
    return sets
