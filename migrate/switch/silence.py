"""Whether this host keeps quiet on its networks about an address that it has: no neighbour may find it by that.

Source: net/ipv4/arp.c arp_ignore(), arp_solicit(); net/ipv6/ndisc.c ndisc_recv_ns(): nobody is answered for an
address of another interface; Documentation/networking/ip-sysctl.rst: of arp_ignore the larger value counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from migrate import rtnetlink
from migrate.switch import netlink

_SETTINGS = Path("/proc/sys/net/ipv4/conf")
#: include/uapi/linux/if.h: IFF_LOOPBACK, IFF_NOARP.
_LOOPBACK, _NO_ARP = 0x8, 0x80
#: arp_ignore: answer only for addresses of the interface asked at; never. arp_announce: always the best address.
_OWN_ALONE, _NEVER, _BEST = (1, 2), 8, 2


def broken(ip: str) -> str:
    """How a neighbour could find *ip* here, with what to do about it; "" if none can.

    :raises OSError: the kernel does not say.
    """
    at = {index for one, index in netlink.places() if one == ip}
    for device, index in _speaking():
        if ":" in ip:
            if index in at:
                return f"it is an address of {device}, which advertises it: have it on lo (/128) instead"
            continue
        ignore = _setting(device, "arp_ignore")
        if ignore != _NEVER and (ignore not in _OWN_ALONE or index in at):
            return (
                f"{device} answers ARP requests for it: have it on lo (/32), and"
                " sysctl -w net.ipv4.conf.all.arp_ignore=1"
            )
        if _setting(device, "arp_announce") != _BEST:
            return (
                f"{device} may name it in ARP requests of its own: sysctl -w net.ipv4.conf.all.arp_announce=2"
            )
    return ""


def _speaking() -> Iterator[tuple[str, int]]:
    """Interfaces that are up and find their neighbours by ARP and the like, by name and index."""
    for link in rtnetlink.links():
        if link.up and not link.flags & (_LOOPBACK | _NO_ARP):
            yield link.name, link.index


def _setting(device: str, name: str) -> int:
    return max(int((_SETTINGS / where / name).read_text()) for where in ("all", device))
