"""The lab's network, by netlink: two bridges in the segment's namespace, a veth pair for each leg.

Each pair is created with its far end already inside its host, so nothing of the lab is ever in the
machine's own network namespace. Netlink sockets belong to the namespace they were opened in; a thread
of its own enters it (setns(2) moves one thread) and opens them there.
"""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from migrate.lab import topology
from migrate.lab.enter import CLONE_NEWNET, setns
from migrate.lab.init import set_sysctls
from migrate.lab.topology import Address, Leg

IFA_F_NODAD = 0x02
IFA_F_NOPREFIXROUTE = 0x200
FAMILIES = ((socket.AF_INET, "ipv4"), (socket.AF_INET6, "ipv6"))

Task = Callable[[IPRoute], None]


def inside(pid: int, task: Task) -> None:
    """Run *task* with a netlink socket in the network namespace of process *pid*.

    :raises: whatever *task* raises.
    """
    failures: list[BaseException] = []

    def body() -> None:
        try:
            with Path(f"/proc/{pid}/ns/net").open() as namespace:
                setns(namespace.fileno(), CLONE_NEWNET)
            with IPRoute() as netlink:
                task(netlink)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=body, name=f"netns-{pid}")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def connect(pids: Mapping[str, int]) -> None:
    """Build the whole network. *pids*: a process in each node's network namespace.

    The hosts' sysctls are set before. After a failure the namespaces hold a part of it: end them.
    """
    inside(pids[topology.SEGMENT], lambda netlink: _make_segment(netlink, pids))
    for host in topology.HOSTS:
        inside(pids[host], lambda netlink, host=host: _configure(netlink, host))  # type: ignore[misc]


def _interfaces(netlink: IPRoute) -> dict[str, int]:
    """Return name -> index of the namespace's interfaces."""
    return {link.get("ifname"): link["index"] for link in netlink.link("dump")}


def _make_segment(netlink: IPRoute, pids: Mapping[str, int]) -> None:
    """Make the bridges and the veth pairs, all up on this side."""
    for name in topology.NETWORKS:
        # No spanning tree, so ports forward at once; no snooping, so IPv6 neighbours need no querier.
        netlink.link("add", ifname=name, kind="bridge", br_stp_state=0, br_mcast_snooping=0)
    for leg in topology.LEGS:
        far_end = {"ifname": leg.interface, "net_ns_pid": pids[leg.host]}
        netlink.link("add", ifname=leg.port, kind="veth", peer=far_end)
    index = _interfaces(netlink)
    for leg in topology.LEGS:
        netlink.link("set", index=index[leg.port], master=index[leg.network], state="up")
    for name in ("lo", *topology.NETWORKS):
        netlink.link("set", index=index[name], state="up")


def _configure(netlink: IPRoute, host: str) -> None:
    """Give one host its addresses, routes and rules; its interfaces are there."""
    index = _interfaces(netlink)
    netlink.link("set", index=index["lo"], state="up")
    for leg in topology.legs_of(host):
        netlink.link("set", index=index[leg.interface], state="up")
    for leg in topology.legs_of(host):
        for address in _addresses_of(leg):
            _add_addresses(netlink, index[leg.interface], address, noprefixroute=leg.name == "neighbour")
        if leg.name == "neighbour":
            _add_neighbour_routes(netlink, index[leg.interface], leg)
    if host != "gateway":
        _add_default_routes(netlink, index["eth0"], topology.legs_of(host)[0])
    set_sysctls(topology.settled_sysctls(host))


def _addresses_of(leg: Leg) -> Iterator[Address]:
    """Yield the leg's addresses in the order of adding, which decides what a new connection comes from.

    Of two equal candidates IPv4 prefers the older address, IPv6 the newer (net/ipv6/addrconf.c,
    ipv6_link_dev_addr()): a host must not use the service's unless asked to.
    """
    if leg == topology.SERVICE_LEG:
        yield Address("", topology.SERVICE.ipv6)
        yield leg.address
        yield Address(topology.SERVICE.ipv4, "")
    else:
        yield leg.address


def _add_addresses(netlink: IPRoute, index: int, address: Address, noprefixroute: bool) -> None:
    more = IFA_F_NOPREFIXROUTE if noprefixroute else 0
    if address.ipv4:
        bits = topology.IPV4_PREFIX_BITS
        netlink.addr("add", index=index, address=address.ipv4, prefixlen=bits, flags=more)
    if address.ipv6:
        bits = topology.IPV6_PREFIX_BITS
        netlink.addr("add", index=index, address=address.ipv6, prefixlen=bits, flags=more | IFA_F_NODAD)


def _add_default_routes(netlink: IPRoute, index: int, leg: Leg) -> None:
    gateway = topology.NETWORKS[leg.network].gateway
    for family, name in FAMILIES:
        route: dict[str, Any] = {"gateway": getattr(gateway, name), "prefsrc": getattr(leg.address, name)}
        netlink.route("add", family=family, dst="default", oif=index, **route)


def _add_neighbour_routes(netlink: IPRoute, index: int, leg: Leg) -> None:
    """Send what comes from the second leg's addresses straight to the servers segment, nothing else."""
    network = topology.NETWORKS[leg.network]
    table = topology.NEIGHBOUR_TABLE
    for family, name in FAMILIES:
        own = getattr(leg.address, name)
        bits = 32 if family == socket.AF_INET else 128
        on_link: dict[str, Any] = {"dst": getattr(network, name), "prefsrc": own}
        if family == socket.AF_INET:
            on_link["scope"] = "link"
        netlink.route("add", family=family, table=table, oif=index, **on_link)
        netlink.rule(
            "add",
            family=family,
            table=table,
            src=own,
            src_len=bits,
            priority=topology.NEIGHBOUR_RULE_PRIORITY,
        )
