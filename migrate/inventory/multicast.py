"""Multicast groups that a socket has joined: CRIU forgets them, and nothing would arrive any more.

The kernel's tables tell which groups this host is in, and not by whom; each socket is asked for each of them.
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct
from pathlib import Path

_TABLES = Path("/proc/net")
_MCAST_MSFILTER = 48
#: struct group_filter without sources: interface, group as struct sockaddr_storage, mode, number of sources.
_FILTER = struct.Struct("=I4x128sII")
_LEVELS = {socket.AF_INET: socket.IPPROTO_IP, socket.AF_INET6: socket.IPPROTO_IPV6}
_libc = ctypes.CDLL(None, use_errno=True)

#: Index of the interface, its name, and the group.
Group = tuple[int, str, ipaddress.IPv4Address | ipaddress.IPv6Address]


def groups() -> list[Group]:
    """The groups that interfaces of this host are in. Source: net/ipv4/igmp.c, net/ipv6/mcast.c: *_seq_show()."""
    found: list[Group] = []
    for name, read in (("igmp", parse_igmp), ("igmp6", parse_igmp6)):
        if (table := _TABLES / name).exists():
            found.extend(read(table.read_text()))
    return found


def parse_igmp(content: str) -> list[Group]:
    """The groups of /proc/net/igmp: below a line for the interface one for each, in this machine's byte order.

    :raises ValueError, IndexError: it is another text.
    """
    found: list[Group] = []
    index, device = 0, ""
    for line in content.split("\n")[1:]:
        words = line.split()
        if words and not line.startswith("\t"):
            index, device = int(words[0]), words[1]
        elif words:
            ip = ipaddress.IPv4Address(struct.pack("=I", int(words[0], 16)))
            found.append((index, device, ip))
    return found


def parse_igmp6(content: str) -> list[Group]:
    """The groups of /proc/net/igmp6, a line for each.

    :raises ValueError, IndexError: it is another text.
    """
    rows = (line.split() for line in content.split("\n") if line)
    return [(int(row[0]), row[1], ipaddress.IPv6Address(bytes.fromhex(row[2]))) for row in rows]


def joined(sock: socket.socket, among: list[Group]) -> str:
    """The first group of *among* that *sock* is in, and where; "" for none. Source: man ip(7), RFC 3678."""
    version = {socket.AF_INET: 4, socket.AF_INET6: 6}.get(sock.family)
    return next(
        (
            f"{ip} on {device}"
            for index, device, ip in among
            if ip.version == version and _in(sock, index, ip)
        ),
        "",
    )


def _in(sock: socket.socket, index: int, ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    family = struct.pack("=H", sock.family)
    address = family + (b"\0\0" if ip.version == 4 else b"\0" * 6) + ip.packed
    question = ctypes.create_string_buffer(_FILTER.pack(index, address, 0, 0), _FILTER.size)
    size = ctypes.c_uint32(_FILTER.size)
    level = _LEVELS[sock.family]
    return not _libc.getsockopt(sock.fileno(), level, _MCAST_MSFILTER, question, ctypes.byref(size))
