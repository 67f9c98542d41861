"""The gateway's routes to single hosts: where one leads, as the table and the kernel say; and leading it elsewhere.

Source: rtnetlink(7); of NLM_F_REPLACE net/ipv4/fib_trie.c fib_table_insert(), net/ipv6/ip6_fib.c
fib6_add_rt2node().
"""

from __future__ import annotations

import ipaddress
import socket

from migrate.errors import SwitchError
from migrate.switch import routes
from tcpcp.kernel import routing

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address

_ONLINK = 4
#: What makes a route lead to more than one next hop, or not by it alone: RTA_MULTIPATH, RTA_VIA, RTA_ENCAP,
#: RTA_NH_ID (include/uapi/linux/rtnetlink.h).
_NOT_ALONE = {9, 18, 22, 30}


def hop(ip: Ip) -> str:
    """The next hop of the route to *ip* alone.

    :raises SwitchError: there is none, or more than one. :raises OSError: the kernel does not say.
    """
    return _hop(_route(ip).body)


def used(ip: Ip) -> str:
    """The next hop to which the kernel sends a packet for *ip*, "" if to none.

    :raises OSError: the kernel does not say.
    """
    with routing.netlink() as asking:
        found = routing.ask(asking, routing.RTM_GETROUTE, 0, routing.route(ip.packed, 0, 0, 0, b""))
    return "" if isinstance(found, int) else _hop(found)


def lead(ip: Ip, before: Ip, to: Ip) -> None:
    """Have the route to *ip* alone lead to *to*; all else of it stays, but for the interface, which follows.

    :raises SwitchError: it does not lead to *before*, or the kernel refuses it; nothing has changed.
    :raises OSError: the kernel does not say.
    """
    route = _route(ip)
    if _hop(route.body) != str(before):
        raise SwitchError(
            f"the route to {ip} leads to {_hop(route.body)}, not to {before}: it is left as it is"
        )
    *fields, flags = routing.RTMSG.unpack_from(route.body)
    left_out = {routing.RTA_GATEWAY} | (set() if flags & _ONLINK else {routing.RTA_OIF})
    kept = [one for one in routing.attributes(route.body) if one[0] not in left_out]
    kept = sorted([*kept, (routing.RTA_GATEWAY, to.packed)])
    body = routing.RTMSG.pack(*fields, flags) + b"".join(routing.attribute(*one) for one in kept)
    try:
        routing.change(routing.RTM_NEWROUTE, routing.CREATE | routing.REPLACE, body)
    except OSError as error:
        raise SwitchError(f"the kernel refuses to lead {ip} to {to}: {error.strerror}") from error


def _route(ip: Ip) -> routes.Route:
    family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
    alone = ipaddress.ip_network(ip)
    found = [
        one
        for one in routes.present(family, [ip.packed])
        if (one.table, one.network, routing.kind_of(one.body)) == (routes.MAIN, alone, routing.UNICAST)
    ]
    if len(found) != 1 or not _hop(found[0].body):
        what = "there are several routes" if len(found) > 1 else "there is no route by a single next hop"
        hint = f"Have one there that leads to the origin: ip route add {alone} via ORIGIN"
        raise SwitchError(f"{what} to {ip} alone in the main table", hint=hint)
    return found[0]


def _hop(body: bytes) -> str:
    told = dict(routing.attributes(body))
    gateway = told.get(routing.RTA_GATEWAY, b"")
    if _NOT_ALONE & told.keys() or len(gateway) not in (4, 16):
        return ""
    return str(ipaddress.ip_address(gateway))


def may_change() -> bool:
    """Whether this process has CAP_NET_ADMIN."""
    with open("/proc/self/status") as status:  # noqa: PTH123
        effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    return bool(effective >> 12 & 1)
