"""Addresses and routes of this host, through pyroute2: one call each, no policy."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import socket
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from migrate.errors import SwitchError

IFA_F_SECONDARY = 0x01
IFA_F_NODAD = 0x02
IFA_F_DEPRECATED = 0x20
IFA_F_NOPREFIXROUTE = 0x200

#: A lifetime (include/net/addrconf.h INFINITY_LIFE_TIME).
FOR_EVER = 0xFFFFFFFF
#: Attributes of an address that is valid for ever and never chosen for new connections.
DEPRECATED = {"preferred_lft": 0, "valid_lft": FOR_EVER}


@dataclass(frozen=True, slots=True)
class Present:
    """An address as it is on this host.

    :ivar flags: IFA_F_* bits.
    """

    ip: ipaddress.IPv4Address | ipaddress.IPv6Address
    prefix_length: int
    index: int
    device: str
    flags: int
    scope: int
    label: str
    broadcast: str
    deprecated: bool

    @property
    def network(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """The network the address is in."""
        return ipaddress.ip_network((self.ip, self.prefix_length), strict=False)


@contextlib.contextmanager
def route(what: str) -> Generator[Any, None, None]:
    """A netlink socket; the kernel's refusals become SwitchError."""
    try:
        yield _socket_in(Path("/proc/thread-self/ns/net").stat().st_ino)
    except NetlinkError as error:
        raise SwitchError(f"cannot {what}: {error.args[1]}") from error
    except OSError as error:
        raise SwitchError(f"cannot {what}: {error.strerror}") from error


@functools.lru_cache(1)
def _socket_in(network: int) -> IPRoute:
    """A netlink socket in this thread's network namespace, whose inode is *network*.

    Kept, because to make one takes longer than what it is asked in the moment that counts.
    """
    return IPRoute()


def addresses(netlink: Any) -> list[Present]:
    """Every address of this host."""
    names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in netlink.get_links()}
    found = []
    for message in netlink.get_addr():
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        found.append(
            Present(
                ipaddress.ip_address(text),
                message["prefixlen"],
                message["index"],
                names.get(message["index"], ""),
                message.get_attr("IFA_FLAGS") or message["flags"],
                message["scope"],
                message.get_attr("IFA_LABEL") or "",
                message.get_attr("IFA_BROADCAST") or "",
                bool((message.get_attr("IFA_FLAGS") or message["flags"]) & IFA_F_DEPRECATED),
            )
        )
    return found


def here(netlink: Any, ips: Iterable[str]) -> set[str]:
    """Which of *ips* this host has."""
    found = {
        message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS") for message in netlink.get_addr()
    }
    return found & set(ips)


def add(netlink: Any, index: int, ip: str, prefix_length: int, **attributes: Any) -> None:
    """Add an address, an IPv6 one without duplicate detection; one that is there is left as it is.

    :param attributes: further ones of :meth:`pyroute2.IPRoute.addr`, e.g. ``preferred_lft=0``.
    """
    version = ipaddress.ip_address(ip).version
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    if version == 6:
        attributes["flags"] = attributes.get("flags", 0) | IFA_F_NODAD
    try:
        netlink.addr("add", index=index, address=ip, prefixlen=prefix_length, family=family, **attributes)
    except NetlinkError as error:
        if error.code != 17:  # EEXIST
            raise


def lease(netlink: Any, index: int, ip: str, prefix_length: int, valid_s: int = FOR_EVER) -> None:
    """Have an address, which may be there already, for *valid_s* from now: then the kernel removes it by itself.

    An IPv6 one is deprecated, see :data:`DEPRECATED`, and has no part in its network's route as long as it may
    end: that would end with it (net/ipv6/addrconf.c addrconf_prefix_route()).
    """
    version = ipaddress.ip_address(ip).version
    attributes: dict[str, Any] = {"family": socket.AF_INET, "preferred_lft": valid_s}
    if version == 6:
        route_flag = IFA_F_NOPREFIXROUTE if valid_s != FOR_EVER else 0
        attributes = {"family": socket.AF_INET6, "preferred_lft": 0, "flags": IFA_F_NODAD | route_flag}
    netlink.addr("replace", index=index, address=ip, prefixlen=prefix_length, valid_lft=valid_s, **attributes)


def remove(netlink: Any, index: int, ip: str, prefix_length: int) -> None:
    """Remove an address; one that is not there is no error."""
    try:
        netlink.addr("delete", index=index, address=ip, prefixlen=prefix_length)
    except NetlinkError as error:
        if error.code not in (99, 19):  # EADDRNOTAVAIL, ENODEV
            raise


def routes_from(netlink: Any, ip: str) -> list[str]:
    """Routes whose preferred source is *ip*: they would vanish with it."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    found = []
    for message in netlink.get_routes(family=family):
        local = message.get_attr("RTA_TABLE") == 255
        if message.get_attr("RTA_PREFSRC") == ip and not local and message["proto"] != 2:
            found.append(f"{message.get_attr('RTA_DST') or 'default'}/{message['dst_len']}")
    return found
