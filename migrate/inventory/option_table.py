"""The options of sockets that neither CRIU nor an ICI carries, by kernel name, for `plain_options`. Pure.

What is not here, and why, says `options_elsewhere`.

Source: man socket(7), unix(7), udp(7), ip(7), ipv6(7), netlink(7); include/uapi; criu/sockets.c dump_socket_opts().
"""

from __future__ import annotations

import enum
import socket
from collections.abc import Mapping
from typing import NamedTuple

from tcpcp.record.option_names import IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, OPTIONS, SOL_SOCKET

_UDPLITE, _NETLINK = 136, 270


class Shape(enum.Enum):
    """How an option is read and set, and what travels."""

    NUMBER = enum.auto()
    #: A struct, or as many bytes as there are.
    BYTES = enum.auto()
    #: The number of an interface, which has another one on another host: its name travels. The second is in the
    #: order of the network.
    INTERFACE = enum.auto()
    INTERFACE_OF_NETWORK = enum.auto()


class Option(NamedTuple):
    """Where it is, and what."""

    level: int
    number: int
    shape: Shape = Shape.NUMBER


def _numbers(level: int, text: str) -> dict[str, Option]:
    """Of a table of names and numbers."""
    words = text.split()
    return {name: Option(level, int(number)) for name, number in zip(words[::2], words[1::2], strict=True)}


# In the order in which they are set. Of time stamps, what is set last decides whether they are of the new kind, and
# a new kind of one shows as that of another too (net/core/sock.c __sock_set_timestamps()).
_OF_ALL = {
    **_numbers(
        SOL_SOCKET,
        """SO_DEBUG 1 SO_RXQ_OVFL 40 SO_WIFI_STATUS 41 SO_NOFCS 43 SO_SELECT_ERR_QUEUE 45 SO_BUSY_POLL 46
        SO_ZEROCOPY 60 SO_PREFER_BUSY_POLL 69 SO_RCVMARK 75 SO_RCVPRIORITY 82
        SO_TIMESTAMPING 37 SO_TIMESTAMP 29 SO_TIMESTAMPNS 35
        SO_TIMESTAMP_NEW 63 SO_TIMESTAMPNS_NEW 64 SO_TIMESTAMPING_NEW 65""",
    ),
    "SO_MAX_PACING_RATE": Option(SOL_SOCKET, 47, Shape.BYTES),
    "SO_TXTIME": Option(SOL_SOCKET, 61, Shape.BYTES),
    # Nobody may take the filter away, which CRIU has put there before.
    "SO_LOCK_FILTER": Option(SOL_SOCKET, 44),
}
_PEEKS = _numbers(SOL_SOCKET, "SO_PEEK_OFF 42")
_OF_UNIX = _numbers(SOL_SOCKET, "SO_REUSEADDR 2 SO_PASSPIDFD 76 SO_PASSRIGHTS 83 SO_INQ 84")
# On IPv6 sockets too, for what they send by IPv4. IP_TOS sets the priority, which CRIU has set.
_OF_IPV4 = {
    **_numbers(IPPROTO_IP, "IP_TOS 1"),
    **_numbers(SOL_SOCKET, "SO_PRIORITY 12"),
    **_numbers(
        IPPROTO_IP,
        """IP_TTL 2 IP_ROUTER_ALERT 5 IP_RECVOPTS 6 IP_RETOPTS 7 IP_PKTINFO 8 IP_MTU_DISCOVER 10 IP_RECVERR 11
        IP_RECVTTL 12 IP_RECVTOS 13 IP_PASSSEC 18 IP_TRANSPARENT 19 IP_RECVORIGDSTADDR 20 IP_MINTTL 21
        IP_CHECKSUM 23 IP_BIND_ADDRESS_NO_PORT 24 IP_RECVFRAGSIZE 25 IP_RECVERR_RFC4884 26 IP_MULTICAST_TTL 33
        IP_MULTICAST_LOOP 34 IP_MULTICAST_ALL 49 IP_LOCAL_PORT_RANGE 51""",
    ),
    "IP_OPTIONS": Option(IPPROTO_IP, 4, Shape.BYTES),
    # An address; an interface that was chosen by its number no call reads.
    "IP_MULTICAST_IF": Option(IPPROTO_IP, 32, Shape.BYTES),
    "IP_UNICAST_IF": Option(IPPROTO_IP, 50, Shape.INTERFACE_OF_NETWORK),
}
_OF_IPV6 = {
    **_numbers(
        IPPROTO_IPV6,
        """IPV6_2292PKTINFO 2 IPV6_2292HOPOPTS 3 IPV6_2292DSTOPTS 4 IPV6_2292RTHDR 5 IPV6_CHECKSUM 7
        IPV6_2292HOPLIMIT 8 IPV6_FLOWINFO 11 IPV6_UNICAST_HOPS 16 IPV6_MULTICAST_HOPS 18 IPV6_MULTICAST_LOOP 19
        IPV6_MTU_DISCOVER 23 IPV6_RECVERR 25 IPV6_V6ONLY 26 IPV6_MULTICAST_ALL 29 IPV6_ROUTER_ALERT_ISOLATE 30
        IPV6_RECVERR_RFC4884 31 IPV6_FLOWINFO_SEND 33 IPV6_RECVPKTINFO 49 IPV6_RECVHOPLIMIT 51 IPV6_RECVHOPOPTS 53
        IPV6_RECVRTHDR 56 IPV6_RECVDSTOPTS 58 IPV6_RECVPATHMTU 60 IPV6_DONTFRAG 62 IPV6_RECVTCLASS 66
        IPV6_TCLASS 67 IPV6_AUTOFLOWLABEL 70 IPV6_ADDR_PREFERENCES 72 IPV6_MINHOPCOUNT 73
        IPV6_RECVORIGDSTADDR 74 IPV6_TRANSPARENT 75 IPV6_RECVFRAGSIZE 77""",
    ),
    "IPV6_HOPOPTS": Option(IPPROTO_IPV6, 54, Shape.BYTES),
    "IPV6_RTHDRDSTOPTS": Option(IPPROTO_IPV6, 55, Shape.BYTES),
    "IPV6_RTHDR": Option(IPPROTO_IPV6, 57, Shape.BYTES),
    "IPV6_DSTOPTS": Option(IPPROTO_IPV6, 59, Shape.BYTES),
    "IPV6_MULTICAST_IF": Option(IPPROTO_IPV6, 17, Shape.INTERFACE),
    "IPV6_UNICAST_IF": Option(IPPROTO_IPV6, 76, Shape.INTERFACE_OF_NETWORK),
}
_OF_UDP = {
    **_numbers(
        socket.IPPROTO_UDP,
        "UDP_ENCAP 100 UDP_NO_CHECK6_TX 101 UDP_NO_CHECK6_RX 102 UDP_SEGMENT 103 UDP_GRO 104",
    ),
    **_numbers(_UDPLITE, "UDPLITE_SEND_CSCOV 10 UDPLITE_RECV_CSCOV 11"),
}
_OF_TCP = {
    **_numbers(IPPROTO_TCP, "TCP_FASTOPEN_CONNECT 30"),
    "TCP_FASTOPEN_KEY": Option(IPPROTO_TCP, 33, Shape.BYTES),
}
_OF_NETLINK = {
    **_numbers(SOL_SOCKET, "SO_REUSEADDR 2"),
    **_numbers(
        _NETLINK,
        """NETLINK_PKTINFO 3 NETLINK_BROADCAST_ERROR 4 NETLINK_NO_ENOBUFS 5 NETLINK_LISTEN_ALL_NSID 8
        NETLINK_CAP_ACK 10 NETLINK_EXT_ACK 11 NETLINK_GET_STRICT_CHK 12""",
    ),
}
_INTERNET = {
    socket.AF_INET: _OF_ALL | _PEEKS | _OF_IPV4,
    socket.AF_INET6: _OF_ALL | _PEEKS | _OF_IPV4 | _OF_IPV6,
}

#: Family -> options of its sockets, those of TCP left out.
PLAIN: Mapping[int, Mapping[str, Option]] = {
    socket.AF_UNIX: _OF_ALL | _PEEKS | _OF_UNIX,
    socket.AF_NETLINK: _OF_ALL | _OF_NETLINK,
    **{family: table | _OF_UDP for family, table in _INTERNET.items()},
}
#: Family -> options of TCP sockets without a connection, those left out that go the way of an ICI's.
UNCONNECTED: Mapping[int, Mapping[str, Option]] = {
    family: {name: option for name, option in (table | _OF_TCP).items() if name not in OPTIONS}
    for family, table in _INTERNET.items()
}
#: Options of connections, beside those of an ICI: a program gets time stamps, or waits for them.
CONNECTED: Mapping[str, Option] = {name: _OF_ALL[name] for name in ("SO_TIMESTAMPING", "SO_TIMESTAMPING_NEW")}
#: Every option here, in the order in which they are set.
ALL: Mapping[str, Option] = {
    name: option for table in (*PLAIN.values(), *UNCONNECTED.values()) for name, option in table.items()
}
#: What a socket has that has chosen nothing a sysctl says; or another option has changed it. Always carried.
OF_HOST = frozenset(
    (
        *("IP_TTL", "IP_MTU_DISCOVER", "SO_PRIORITY"),
        *("IPV6_UNICAST_HOPS", "IPV6_MTU_DISCOVER", "IPV6_AUTOFLOWLABEL"),
    )
)
