"""Addresses of this host, looked at and changed: one call each, no policy."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

from migrate import rtnetlink
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

#: struct ifa_cacheinfo: for how many seconds it is preferred, and valid; when it was made, and changed.
_CACHEINFO = struct.Struct("=4I")

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
def route(what: str) -> Generator[None, None, None]:
    """The kernel's refusals to do *what* become SwitchError."""
    try:
        yield
    except OSError as error:
        raise SwitchError(f"cannot {what}: {error.strerror or error}") from error


def addresses() -> list[Present]:
    """Every address of this host. :raises OSError: the kernel does not say."""
    names = {link.index: link.name for link in rtnetlink.links()}
    return [_present(told, names.get(told.index, "")) for told in rtnetlink.addresses()]


def _present(told: rtnetlink.Told, device: str) -> Present:
    far = told.ip_at(rtnetlink.IFA_ADDRESS)
    times = told.attributes.get(rtnetlink.IFA_CACHEINFO)
    preferred, valid, _, _ = _CACHEINFO.unpack(times) if times else (FOR_EVER, FOR_EVER, 0, 0)
    return Present(
        ipaddress.ip_address(told.ip),
        told.prefix_length,
        told.index,
        device,
        told.number(rtnetlink.IFA_FLAGS),
        told.scope,
        told.text(rtnetlink.IFA_LABEL),
        told.ip_at(rtnetlink.IFA_BROADCAST),
        far if far and far != told.ip else "",
        told.number(rtnetlink.IFA_RT_PRIORITY),
        told.number(rtnetlink.IFA_PROTO),
        (valid, preferred),
    )


def places() -> list[tuple[str, int]]:
    """Every address of this host, and the index of its interface. :raises OSError: the kernel does not say."""
    return [(told.ip, told.index) for told in rtnetlink.addresses()]


def here(ips: Iterable[str]) -> set[str]:
    """Which of *ips* this host has. :raises OSError: as :func:`places`."""
    return {ip for ip, _ in places()}.intersection(ips)


def add(index: int, ip: str, prefix_length: int, peer: str = "", **attributes: Any) -> None:
    """Add an address, an IPv6 one without duplicate detection; one that is there is left as it is.

    :param peer: see :class:`Present`.
    :param attributes: further ones, of :data:`_ATTRIBUTES` or the scope, as they stand in a journal.
    :raises OSError: the kernel refuses it.
    """
    if ":" in ip:
        attributes["flags"] = (attributes.get("flags") or 0) | IFA_F_NODAD
    body = _whole_body(index, ip, prefix_length, peer, attributes)
    routing.change(routing.RTM_NEWADDR, routing.CREATE | routing.EXCL, body, (errno.EEXIST,))


def change(index: int, ip: str, prefix_length: int, peer: str = "", **attributes: Any) -> None:
    """Give an address that is there *attributes*, as :func:`add` has them, in place of those it has.

    :raises OSError: the kernel refuses it.
    """
    body = _whole_body(index, ip, prefix_length, peer, attributes)
    routing.change(routing.RTM_NEWADDR, routing.CREATE | routing.REPLACE, body)


#: What an address may have beside its scope and its lifetimes, by the names that journals have: what the kernel
#: calls it, and how it is told.
_ATTRIBUTES: dict[str, tuple[int, Callable[[Any], bytes]]] = {
    "flags": (rtnetlink.IFA_FLAGS, routing.U32.pack),
    "label": (rtnetlink.IFA_LABEL, lambda name: os.fsencode(name) + b"\0"),
    "broadcast": (rtnetlink.IFA_BROADCAST, socket.inet_aton),
    "rt_priority": (rtnetlink.IFA_RT_PRIORITY, routing.U32.pack),
    "proto": (rtnetlink.IFA_PROTO, struct.Struct("=B").pack),
}


def _whole_body(index: int, ip: str, prefix_length: int, peer: str, attributes: dict[str, Any]) -> bytes:
    body = _body(index, prefix_length, ip, peer or ip, attributes.get("scope", 0))
    for name, (kind, told) in _ATTRIBUTES.items():
        if attributes.get(name) is not None:
            body += routing.attribute(kind, told(attributes[name]))
    return body + _lifetimes(attributes.get("valid_lft", FOR_EVER), attributes.get("preferred_lft", FOR_EVER))


def _lifetimes(valid_s: int, preferred_s: int) -> bytes:
    return routing.attribute(rtnetlink.IFA_CACHEINFO, _CACHEINFO.pack(preferred_s, valid_s, 0, 0))


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
    more = routing.attribute(rtnetlink.IFA_FLAGS, routing.U32.pack(flags)) + _lifetimes(valid_s, preferred_s)
    body = _body(index, prefix_length, ip, ip)
    routing.change(routing.RTM_NEWADDR, routing.CREATE | routing.REPLACE, body + more)


def remove(index: int, ip: str, prefix_length: int, peer: str = "") -> None:
    """Remove an address; one that is not there is no error.

    :raises OSError: the kernel refuses to.
    """
    harmless = (errno.EADDRNOTAVAIL, errno.ENODEV)
    routing.change(routing.RTM_DELADDR, 0, _body(index, prefix_length, ip, peer or ip), harmless)


def _body(index: int, prefix_length: int, ip: str, peer: str, scope: int = 0) -> bytes:
    """An address, and who is meant by the prefix; Source: net/ipv4/devinet.c rtm_to_ifaddr()."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    local, far = (socket.inet_pton(family, one) for one in (ip, peer))
    body = rtnetlink.IFADDRMSG.pack(family, prefix_length, 0, scope, index)
    body += routing.attribute(rtnetlink.IFA_ADDRESS, far)
    if family == socket.AF_INET or local != far:
        body += routing.attribute(rtnetlink.IFA_LOCAL, local)
    return body
