"""Addresses of this host, through pyroute2 where nobody is in a hurry: one call each, no policy."""

from __future__ import annotations

import contextlib
import errno
import functools
import ipaddress
import socket
import struct
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from migrate.errors import SwitchError
from tcpcp.kernel import routing

IFA_F_SECONDARY = 0x01
IFA_F_NODAD = 0x02
IFA_F_HOMEADDRESS = 0x10
IFA_F_DEPRECATED = 0x20
IFA_F_MANAGETEMPADDR = 0x100
IFA_F_NOPREFIXROUTE = 0x200
IFA_F_MCAUTOJOIN = 0x400
#: Those that somebody gives an address, by their names; the others the kernel does.
GIVEN = {
    IFA_F_NODAD: "nodad",
    IFA_F_HOMEADDRESS: "home",
    IFA_F_MANAGETEMPADDR: "mngtmpaddr",
    IFA_F_NOPREFIXROUTE: "noprefixroute",
    IFA_F_MCAUTOJOIN: "autojoin",
}

#: struct ifaddrmsg, with which the kernel begins what it tells of an address, and attributes behind it.
_IFADDRMSG = struct.Struct("=4BI")
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 6, 8

#: A lifetime (include/net/addrconf.h INFINITY_LIFE_TIME).
FOR_EVER = 0xFFFFFFFF
#: Attributes of an address that is valid for ever and never chosen for new connections.
DEPRECATED = {"preferred_lft": 0, "valid_lft": FOR_EVER}


@dataclass(frozen=True, slots=True)
class Present:
    """An address as it is on this host.

    :ivar flags: IFA_F_* bits. :ivar peer: the other end, of an address that is for one other host alone, else "".
    :ivar metric: of the route to its network, 0 for the usual one. :ivar protocol: who gave it, IFAPROT_*, or 0.
    :ivar left: for how many seconds it is valid, and preferred, from now on; :data:`FOR_EVER` is no number.
    """

    ip: ipaddress.IPv4Address | ipaddress.IPv6Address
    prefix_length: int
    index: int
    device: str
    flags: int
    scope: int
    label: str = ""
    broadcast: str = ""
    peer: str = ""
    metric: int = 0
    protocol: int = 0
    left: tuple[int, int] = (FOR_EVER, FOR_EVER)

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return socket.AF_INET6 if self.ip.version == 6 else socket.AF_INET

    @property
    def deprecated(self) -> bool:
        """Whether it is not chosen for new connections."""
        return bool(self.flags & IFA_F_DEPRECATED)

    @property
    def network(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """The network that it makes this host a part of."""
        return ipaddress.ip_network((self.peer or self.ip, self.prefix_length), strict=False)


@contextlib.contextmanager
def route(what: str) -> Generator[Any, None, None]:
    """A netlink socket; the kernel's refusals become SwitchError."""
    try:
        yield _socket_in(Path("/proc/thread-self/ns/net").stat().st_ino)
    except NetlinkError as error:
        refusal = OSError(*error.args[:2])  # its number has a remedy
        raise SwitchError(f"cannot {what}: {error.args[1]}") from refusal
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
    return [_present(message, names.get(message["index"], "")) for message in netlink.get_addr()]


def _present(message: Any, device: str) -> Present:
    told, local = message.get_attr("IFA_ADDRESS"), message.get_attr("IFA_LOCAL")
    times = message.get_attr("IFA_CACHEINFO") or {"ifa_valid": FOR_EVER, "ifa_preferred": FOR_EVER}
    return Present(
        ipaddress.ip_address(local or told),
        message["prefixlen"],
        message["index"],
        device,
        message.get_attr("IFA_FLAGS") or message["flags"],
        message["scope"],
        message.get_attr("IFA_LABEL") or "",
        message.get_attr("IFA_BROADCAST") or "",
        told if local and told and told != local else "",
        message.get_attr("IFA_RT_PRIORITY") or 0,
        message.get_attr("IFA_PROTO") or 0,
        (times["ifa_valid"], times["ifa_preferred"]),
    )


def places() -> list[tuple[str, int]]:
    """Every address of this host, and the index of its interface; in a tenth of the time of :func:`addresses`.

    :raises OSError: the kernel does not say.
    """
    with routing.netlink() as asking:
        found = routing.whole(asking, bytes(_IFADDRMSG.size), routing.RTM_GETADDR, "addresses")
    return [_place(body) for body in found]


def _place(body: bytes) -> tuple[str, int]:
    family, _, _, _, index = _IFADDRMSG.unpack_from(body)
    told = dict(routing.attributes(body, _IFADDRMSG.size))
    return socket.inet_ntop(family, told.get(_IFA_LOCAL) or told[_IFA_ADDRESS]), index


def here(ips: Iterable[str]) -> set[str]:
    """Which of *ips* this host has. :raises OSError: as :func:`places`."""
    return {ip for ip, _ in places()}.intersection(ips)


def add(netlink: Any, index: int, ip: str, prefix_length: int, peer: str = "", **attributes: Any) -> None:
    """Add an address, an IPv6 one without duplicate detection; one that is there is left as it is.

    :param peer: see :class:`Present`.
    :param attributes: further ones of :meth:`pyroute2.IPRoute.addr`, e.g. ``preferred_lft=0``.
    """
    if ":" in ip:
        attributes["flags"] = attributes.get("flags", 0) | IFA_F_NODAD
    try:
        netlink.addr("add", index=index, prefixlen=prefix_length, **_ends(ip, peer), **attributes)
    except NetlinkError as error:
        if error.code != 17:  # EEXIST
            raise


def change(netlink: Any, index: int, ip: str, prefix_length: int, peer: str = "", **attributes: Any) -> None:
    """Give an address that is there *attributes*, as :func:`add` has them, in place of those it has."""
    netlink.addr("replace", index=index, prefixlen=prefix_length, **_ends(ip, peer), **attributes)


def _ends(ip: str, peer: str) -> dict[str, Any]:
    """Who has the address, and who is meant by the prefix; Source: net/ipv4/devinet.c rtm_to_ifaddr()."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    return {"family": family, "address": peer or ip} | ({"local": ip} if peer else {})


def lease(index: int, ip: str, prefix_length: int, valid_s: int = FOR_EVER, flags: int = 0) -> None:
    """Have an address, which may be there already, for *valid_s* from now: then the kernel removes it by itself.

    An IPv6 one is deprecated, see :data:`DEPRECATED`, and has no part in its network's route as long as it may
    end: that would end with it (net/ipv6/addrconf.c addrconf_prefix_route()).

    :raises OSError: the kernel refuses it.
    """
    preferred_s = valid_s
    if ":" in ip:
        flags |= IFA_F_NODAD | (IFA_F_NOPREFIXROUTE if valid_s != FOR_EVER else 0)
        preferred_s = 0
    more = routing.attribute(_IFA_FLAGS, routing.U32.pack(flags))
    more += routing.attribute(_IFA_CACHEINFO, struct.pack("=4I", preferred_s, valid_s, 0, 0))
    body = _body(index, prefix_length, ip, ip)
    routing.change(routing.RTM_NEWADDR, routing.CREATE | routing.REPLACE, body + more)


def remove(index: int, ip: str, prefix_length: int, peer: str = "") -> None:
    """Remove an address; one that is not there is no error.

    :raises OSError: the kernel refuses to.
    """
    harmless = (errno.EADDRNOTAVAIL, errno.ENODEV)
    routing.change(routing.RTM_DELADDR, 0, _body(index, prefix_length, ip, peer or ip), harmless)


def _body(index: int, prefix_length: int, ip: str, peer: str) -> bytes:
    """An address as pyroute2 would tell it, in a tenth of its time: while a process is frozen."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    local, far = (socket.inet_pton(family, one) for one in (ip, peer))
    body = _IFADDRMSG.pack(family, prefix_length, 0, 0, index) + routing.attribute(_IFA_ADDRESS, far)
    if family == socket.AF_INET or local != far:
        body += routing.attribute(_IFA_LOCAL, local)
    return body
