"""Names and addresses of the lab: who is where, and what each host is told about the others.

    origin 10.77.1.1 --+                                 service addresses, on origin at first:
    destination .2 ----+-- servers 10.77.1.0/24 --- gateway --- clients 10.77.2.0/24 --- peer 10.77.2.1
    neighbour = peer's second leg, 10.77.1.3 on servers          10.77.1.100, fd77:1::100

Pure: no system call is made here. Interfaces are named eth0, eth1 in the order of :data:`LEGS`.
"""

from typing import NamedTuple

IPV4_PREFIX_BITS = 24
IPV6_PREFIX_BITS = 64

#: Routing table and rule priority of the peer's second leg.
NEIGHBOUR_TABLE = 101
NEIGHBOUR_RULE_PRIORITY = 100

HOSTS = ("origin", "destination", "gateway", "peer")
#: The fifth set of namespaces: it holds the two bridges, and nothing speaks there.
SEGMENT = "segment"
NODES = (*HOSTS, SEGMENT)
ALIASES = {"neighbour": "peer"}


class Address(NamedTuple):
    """One IPv4 and one IPv6 address, as text without prefix length."""

    ipv4: str
    ipv6: str


class Network(NamedTuple):
    """One segment: its networks in CIDR notation, and the gateway's addresses on it."""

    ipv4: str
    ipv6: str
    gateway: Address


class Leg(NamedTuple):
    """One interface of one host. *name* is what the leg's addresses are called in /etc/hosts."""

    host: str
    name: str
    interface: str
    network: str
    address: Address

    @property
    def port(self) -> str:
        """Name of the other end of the veth pair, in the segment's namespace."""
        return f"{self.host}{self.interface[-1]}"


NETWORKS = {
    "servers": Network("10.77.1.0/24", "fd77:1::/64", Address("10.77.1.254", "fd77:1::fe")),
    "clients": Network("10.77.2.0/24", "fd77:2::/64", Address("10.77.2.254", "fd77:2::fe")),
}

LEGS = (
    Leg("origin", "origin", "eth0", "servers", Address("10.77.1.1", "fd77:1::1")),
    Leg("destination", "destination", "eth0", "servers", Address("10.77.1.2", "fd77:1::2")),
    Leg("gateway", "gateway", "eth0", "servers", NETWORKS["servers"].gateway),
    Leg("gateway", "gateway", "eth1", "clients", NETWORKS["clients"].gateway),
    Leg("peer", "peer", "eth0", "clients", Address("10.77.2.1", "fd77:2::1")),
    Leg("peer", "neighbour", "eth1", "servers", Address("10.77.1.3", "fd77:1::3")),
)

SERVICE = Address("10.77.1.100", "fd77:1::100")
#: The leg that has the service addresses at first.
SERVICE_LEG = LEGS[0]


def node_of(name: str) -> str | None:
    """Return the node that *name* stands for (an alias is resolved), None if there is none."""
    node = ALIASES.get(name, name)
    return node if node in NODES else None


def legs_of(host: str) -> tuple[Leg, ...]:
    """Return the interfaces of *host*, eth0 first; the segment has none."""
    return tuple(leg for leg in LEGS if leg.host == host)


def addresses() -> dict[str, Address]:
    """Return the address by which each name, aliases included, is known first."""
    known: dict[str, Address] = {}
    for leg in LEGS:
        known.setdefault(leg.name, leg.address)
    return known


def own_addresses(host: str) -> list[str]:
    """Return every address of *host* that never moves: all but the service's."""
    return [text for leg in legs_of(host) for text in leg.address]


def hosts_file(host: str) -> str:
    """Return /etc/hosts as *host* has it; of a name with two legs the one nearer to *host* comes first."""
    near = {leg.network for leg in legs_of(host)[:1]}
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    for leg in sorted(LEGS, key=lambda leg: leg.network not in near):
        lines += [f"{text} {leg.name}" for text in leg.address]
    lines += [f"{text} service" for text in SERVICE]
    return "\n".join(lines) + "\n"


def sysctls(host: str) -> dict[str, str]:
    """Return what is written below /proc/sys before *host* has an interface, in this order.

    A key that ends in "?" is left out where the kernel does not know it.
    """
    if host == SEGMENT:
        return {
            "net/ipv6/conf/default/disable_ipv6": "1",
            "net/bridge/bridge-nf-call-iptables?": "0",
            "net/bridge/bridge-nf-call-ip6tables?": "0",
            "net/bridge/bridge-nf-call-arptables?": "0",
        }
    forwarding = "1" if host == "gateway" else "0"
    # Switching forwarding resets other keys, so it comes first.
    keys = {"net/ipv4/ip_forward": forwarding, "net/ipv6/conf/all/forwarding": forwarding}
    # Loose reverse-path filter on interfaces, none on "all" (the kernel takes the larger of the two):
    # what systemd sets on Debian, and a program can still switch it off for a device of its own.
    keys |= {"net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/default/rp_filter": "2"}
    for scope in ("all", "default"):
        keys |= {
            f"net/ipv4/conf/{scope}/accept_redirects": "0",
            f"net/ipv4/conf/{scope}/send_redirects": "0",
            f"net/ipv4/conf/{scope}/promote_secondaries": "1",
            f"net/ipv6/conf/{scope}/accept_redirects": "0",
            f"net/ipv6/conf/{scope}/accept_ra": "0",
            f"net/ipv6/conf/{scope}/accept_dad": "0",
        }
        if host == "peer":
            # Two legs: an interface speaks only for its own addresses.
            keys |= {f"net/ipv4/conf/{scope}/arp_ignore": "1", f"net/ipv4/conf/{scope}/arp_announce": "2"}
    return keys


def settled_sysctls(host: str) -> dict[str, str]:
    """Return what is written once the addresses are there.

    The lab's own addresses need no duplicate address detection, but one that a program adds later
    meets it as on any machine, else a forgotten ``nodad`` would not be noticed here.
    """
    scopes = ("all", "default", *(leg.interface for leg in legs_of(host)))
    return {f"net/ipv6/conf/{scope}/accept_dad": "0" if scope == "all" else "1" for scope in scopes}
