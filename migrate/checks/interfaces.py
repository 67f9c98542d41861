"""What a host's interfaces say of an address: whether it has it, where it would be, how it gets there. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from migrate.inventory import ports
from migrate.pb.session_pb2 import HostInventory

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
#: Lengths of the prefixes of most networks that hosts are on.
_USUAL_LENGTHS = {4: 24, 6: 64}


def addresses(host: HostInventory) -> set[bytes]:
    """All of them, packed."""
    texts = (text for interface in host.interfaces for text in interface.addresses)
    return {ports.packed(text.partition("/")[0]) for text in texts}


def networks(host: HostInventory) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Yield the networks that the host is on; an address that is a network of its own says nothing."""
    for interface in host.interfaces:
        for text in interface.addresses:
            network = ipaddress.ip_network(text, strict=False)
            if interface.up and network.prefixlen < network.max_prefixlen and not network.is_loopback:
                yield network


def device_at(host: HostInventory, ip: Ip) -> str:
    """Return the interface that has *ip*, else one on its network, else a word to be replaced."""
    for interface in host.interfaces:
        if any(ip == ipaddress.ip_interface(text).ip for text in interface.addresses):
            return interface.name
    for interface in host.interfaces:
        if interface.name != "lo" and any(
            ip in ipaddress.ip_interface(t).network for t in interface.addresses
        ):
            return interface.name
    return "DEVICE"


def length_at(host: HostInventory, ip: Ip) -> int:
    """Return the prefix's length that *ip* has there, else that of a network of its own."""
    for interface in host.interfaces:
        for text in interface.addresses:
            if ip == ipaddress.ip_interface(text).ip:
                return ipaddress.ip_interface(text).network.prefixlen
    return ip.max_prefixlen


def addition(host: HostInventory, ip: Ip, address: str) -> str:
    """The command that gives the host *address*, on the network of *ip*."""
    lengths = [network.prefixlen for network in networks(host) if ip in network]
    # Else the host's own connections would leave from it: of IPv6 addresses the newest is preferred.
    unused = " preferred_lft 0" if ip.version == 6 else ""
    length = (lengths or [_USUAL_LENGTHS[ip.version]])[0]
    return f"ip addr add {address}/{length} dev {device_at(host, ip)}{unused}"


def quiet_addition(ip: Ip) -> str:
    """The command that gives a host *ip* on no network of its, so that it is used by whatever is sent there."""
    return f"ip addr add {ip}/{ip.max_prefixlen} dev lo" + (" preferred_lft 0" if ip.version == 6 else "")


def removal(host: HostInventory, ip: Ip) -> str:
    """The command that takes *ip* from the host."""
    return f"ip addr del {ip}/{length_at(host, ip)} dev {device_at(host, ip)}"
