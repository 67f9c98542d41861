"""The socket options an ICI carries: one table, by kernel name. Pure; the calls are in `socket_options`.

What a socket has besides, and why it is left out, says `options_left_out`.

Numbers and ranges are those of the kernel's uapi and of the code that checks them; they are the same on all
architectures that CRIU runs on, except alpha, mips, parisc and sparc, which number SOL_SOCKET's otherwise.

Source: include/uapi/asm-generic/socket.h, include/uapi/linux/{tcp,in,in6}.h; net/core/sock.c sk_setsockopt(),
net/ipv4/tcp.c do_tcp_setsockopt(), net/ipv4/ip_sockglue.c, net/ipv6/ipv6_sockglue.c.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

SOL_SOCKET = 1
IPPROTO_IP = 0
IPPROTO_TCP = 6
IPPROTO_IPV6 = 41

INT_MAX = 2**31 - 1
U32_MAX = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    :ivar minimum: smallest, :ivar maximum: largest value that the kernel reports and we carry.
    :ivar takes: smallest and largest value that it takes, where a sysctl may say more: what a socket that has
        chosen nothing reports is the sysctl's, and the two have limits of their own. None: the same.
    :ivar default: what every kernel starts a socket with; None where a sysctl decides, or that is no number.
    :ivar ipv6_only: exists on AF_INET6 sockets only.
    :ivar listening_only: has no meaning, or cannot be set, once the socket is connected.
    :ivar kernel_type: how the kernel has it; a struct timeval is in an ICI as microseconds.
    :ivar saved_by_criu: CRIU dumps and restores it, so a socket that CRIU made has it already.
    :ivar privileged: setting it needs CAP_NET_ADMIN.
    """

    name: str
    level: int
    number: int
    minimum: int
    maximum: int
    default: int | None = None
    ipv6_only: bool = False
    listening_only: bool = False
    saved_by_criu: bool = False
    privileged: bool = False
    kernel_type: str = "int"
    takes: tuple[int, int] | None = None

    def settable(self, value: int) -> int:
        """The value nearest to *value* that the kernel takes."""
        least, most = self.takes or (self.minimum, self.maximum)
        return min(max(value, least), most)

    def is_settable(self, value: int) -> bool:
        """Whether the kernel takes *value*."""
        return self.settable(value) == value

    def problem(self, value: int) -> str | None:
        """What is wrong with *value* for this option, or None."""
        if self.minimum <= value <= self.maximum:
            return None
        return f"{self.name} is {value}, must be {self.minimum} to {self.maximum}"


#: SO_BUF_LOCK: 1 the send buffer's, 2 the receive buffer's size was set by the application; without its bit
#: the kernel tunes a buffer itself. An ICI has both sizes in either case, so that a connection does not start
#: anew with small buffers; of a listening socket only a size that was set is carried.
SNDBUF_LOCK, RCVBUF_LOCK = 1, 2
#: Longest SO_RCVTIMEO and SO_SNDTIMEO carried, us: 146,000 years. What is longer becomes this.
MAX_TIMEOUT_US = 2**62
#: SO_LINGER without an end, one more than the most seconds: the kernel takes each number below 0 for it, and what
#: it reports then is no time but the lower half of its largest number of clock ticks.
LINGER_FOR_EVER = 2**31
#: Of a time in seconds that a sysctl keeps as an int of clock ticks, of which a second has 100 at least.
_MOST_S = INT_MAX // 100

_TABLE = (
    # The kernel doubles what is set for the two buffers and reports it doubled; an ICI has what it reports.
    # What it starts with is a sysctl's, which may be anything from 1 on; set, it gets no smaller than 2304.
    Option("SO_BUF_LOCK", SOL_SOCKET, 72, 0, 3, 0, saved_by_criu=True),
    Option("SO_SNDBUF", SOL_SOCKET, 7, 1, INT_MAX, saved_by_criu=True, privileged=True),
    Option("SO_RCVBUF", SOL_SOCKET, 8, 1, INT_MAX, saved_by_criu=True, privileged=True),
    # No meaning to TCP, but a program that has set it finds it.
    Option("SO_DEBUG", SOL_SOCKET, 1, 0, 1, 0, privileged=True),
    Option("SO_REUSEADDR", SOL_SOCKET, 2, 0, 1, 0, saved_by_criu=True),
    Option("SO_REUSEPORT", SOL_SOCKET, 15, 0, 1, 0, saved_by_criu=True),
    Option("SO_DONTROUTE", SOL_SOCKET, 5, 0, 1, 0, saved_by_criu=True),
    Option("SO_KEEPALIVE", SOL_SOCKET, 9, 0, 1, 0, saved_by_criu=True),
    Option("SO_OOBINLINE", SOL_SOCKET, 10, 0, 1, 0, saved_by_criu=True),
    # Before SO_PRIORITY, which it sets too. CRIU saves it on AF_INET sockets only, and IP_TTL likewise.
    Option("IP_TOS", IPPROTO_IP, 1, 0, 255, 0),
    Option("SO_PRIORITY", SOL_SOCKET, 12, 0, U32_MAX, 0, saved_by_criu=True, privileged=True),
    # -1: off; else seconds, or for ever.
    Option("SO_LINGER", SOL_SOCKET, 13, -1, LINGER_FOR_EVER, -1),
    # us, 0: for ever. The kernel rounds up to its clock tick.
    Option("SO_RCVTIMEO", SOL_SOCKET, 20, 0, MAX_TIMEOUT_US, 0, saved_by_criu=True, kernel_type="timeval"),
    Option("SO_SNDTIMEO", SOL_SOCKET, 21, 0, MAX_TIMEOUT_US, 0, saved_by_criu=True, kernel_type="timeval"),
    # 0, as those have it that a listener of Multipath TCP accepts, means 1 (sock_rcvlowat()): so it is carried.
    Option("SO_RCVLOWAT", SOL_SOCKET, 18, 1, INT_MAX, 1, saved_by_criu=True),
    Option("SO_MARK", SOL_SOCKET, 36, 0, U32_MAX, 0, saved_by_criu=True, privileged=True),
    # Where the next MSG_PEEK begins, for TCP since 6.9; -1: off. A peek moves it, ours too.
    Option("SO_PEEK_OFF", SOL_SOCKET, 42, -1, INT_MAX, -1),
    # Nobody may take the socket's filter away; so it has to be there before (:data:`socket_options.LAST`).
    Option("SO_LOCK_FILTER", SOL_SOCKET, 44, 0, 1, 0),
    # us; what a socket starts with is net.core.busy_read, of this host and its devices.
    Option("SO_BUSY_POLL", SOL_SOCKET, 46, 0, INT_MAX, 0, privileged=True),
    Option("SO_PREFER_BUSY_POLL", SOL_SOCKET, 69, 0, 1, 0, privileged=True),
    Option("SO_TXREHASH", SOL_SOCKET, 74, 0, 1),
    # When a packet came, as ancillary data; NS: a struct timespec. One at most is on, but of SO_TIMESTAMPNS_NEW
    # the kernel says SO_TIMESTAMP_NEW too, so that comes before it.
    Option("SO_TIMESTAMP", SOL_SOCKET, 29, 0, 1, 0),
    Option("SO_TIMESTAMPNS", SOL_SOCKET, 35, 0, 1, 0),
    Option("SO_TIMESTAMP_NEW", SOL_SOCKET, 63, 0, 1, 0),
    Option("SO_TIMESTAMPNS_NEW", SOL_SOCKET, 64, 0, 1, 0),
    # Bytes a second; it is not there where nothing limits it. 0: nothing is sent but what is sent again.
    Option("SO_MAX_PACING_RATE", SOL_SOCKET, 47, 0, 2**63 - 1, kernel_type="unsigned long"),
    Option("SO_ZEROCOPY", SOL_SOCKET, 60, 0, 1, 0),
    Option("TCP_NODELAY", IPPROTO_TCP, 1, 0, 1, 0, saved_by_criu=True),
    # Of a listener: what its connections announce at most. Of a connection the ICI has what was agreed.
    Option("TCP_MAXSEG", IPPROTO_TCP, 2, 88, 32767, 536, listening_only=True),
    Option("TCP_CORK", IPPROTO_TCP, 3, 0, 1, 0, saved_by_criu=True),
    # The sysctls take any number, below 0 too, and an octet.
    Option("TCP_KEEPIDLE", IPPROTO_TCP, 4, -_MOST_S, _MOST_S, saved_by_criu=True, takes=(1, 32767)),
    Option("TCP_KEEPINTVL", IPPROTO_TCP, 5, -_MOST_S, _MOST_S, saved_by_criu=True, takes=(1, 32767)),
    Option("TCP_KEEPCNT", IPPROTO_TCP, 6, 0, 255, saved_by_criu=True, takes=(1, 127)),
    Option("TCP_SYNCNT", IPPROTO_TCP, 7, 1, 127, listening_only=True),
    # -1: none; 0: as the sysctl says, which is how one below 0 is carried: set it would be none.
    Option("TCP_LINGER2", IPPROTO_TCP, 8, -1, _MOST_S, takes=(-1, 120)),
    Option("TCP_DEFER_ACCEPT", IPPROTO_TCP, 9, 0, 2**20, 0, listening_only=True),
    Option("TCP_WINDOW_CLAMP", IPPROTO_TCP, 10, 1, INT_MAX),
    # Whether the connection acknowledges at once; the kernel itself goes on adjusting it.
    Option("TCP_QUICKACK", IPPROTO_TCP, 12, 0, 1, 1),
    Option("TCP_THIN_LINEAR_TIMEOUTS", IPPROTO_TCP, 16, 0, 1, 0),
    Option("TCP_USER_TIMEOUT", IPPROTO_TCP, 18, 0, INT_MAX, 0),
    Option("TCP_FASTOPEN", IPPROTO_TCP, 23, 0, INT_MAX, 0, listening_only=True),
    # 0: as the sysctl says.
    Option("TCP_NOTSENT_LOWAT", IPPROTO_TCP, 25, 0, U32_MAX, 0),
    Option("TCP_SAVE_SYN", IPPROTO_TCP, 27, 0, 2, 0, listening_only=True),
    Option("TCP_FASTOPEN_NO_COOKIE", IPPROTO_TCP, 34, 0, 1, 0, listening_only=True),
    Option("TCP_INQ", IPPROTO_TCP, 36, 0, 1, 0),
    # us. The limit is the kernel's since 6.18; before there was none.
    Option("TCP_TX_DELAY", IPPROTO_TCP, 37, 0, U32_MAX, 0, takes=(0, 2**28 - 1)),
    # Since 6.15; ms and us. What it takes at least are two clock ticks, whose length it does not tell.
    Option("TCP_RTO_MAX_MS", IPPROTO_TCP, 44, 1000, 120000),
    Option("TCP_RTO_MIN_US", IPPROTO_TCP, 45, 1, U32_MAX, takes=(1, 200000)),
    Option("TCP_DELACK_MAX_US", IPPROTO_TCP, 46, 1, 200000, 200000),
    Option("IP_TTL", IPPROTO_IP, 2, 1, 255),
    Option("IP_MTU_DISCOVER", IPPROTO_IP, 10, 0, 5),
    Option("IP_RECVERR", IPPROTO_IP, 11, 0, 1, 0),
    Option("IP_FREEBIND", IPPROTO_IP, 15, 0, 1, 0, saved_by_criu=True),
    Option("IP_TRANSPARENT", IPPROTO_IP, 19, 0, 1, 0, privileged=True),
    Option("IP_MINTTL", IPPROTO_IP, 21, 0, 255, 0),
    Option("IP_RECVERR_RFC4884", IPPROTO_IP, 26, 0, 1, 0),
    Option("IPV6_UNICAST_HOPS", IPPROTO_IPV6, 16, 0, 255, ipv6_only=True),
    Option("IPV6_MTU_DISCOVER", IPPROTO_IPV6, 23, 0, 5, ipv6_only=True),
    Option("IPV6_RECVERR", IPPROTO_IPV6, 25, 0, 1, 0, ipv6_only=True),
    # Also of connections: where net.ipv6.bindv6only is 1, an IPv4-mapped one cannot be bound without it. What is
    # bound to an IPv6 address has 1 whatever was set, and for good (net/ipv6/af_inet6.c __inet6_bind()).
    Option("IPV6_V6ONLY", IPPROTO_IPV6, 26, 0, 1, ipv6_only=True, saved_by_criu=True),
    Option("IPV6_RECVERR_RFC4884", IPPROTO_IPV6, 31, 0, 1, 0, ipv6_only=True),
    Option("IPV6_TCLASS", IPPROTO_IPV6, 67, 0, 255, 0, ipv6_only=True),
    Option("IPV6_AUTOFLOWLABEL", IPPROTO_IPV6, 70, 0, 1, ipv6_only=True),
    Option("IPV6_MINHOPCOUNT", IPPROTO_IPV6, 73, 0, 255, 0, ipv6_only=True),
    # These two are one bit with IP_TRANSPARENT and IP_FREEBIND, which IPv6 connections are not asked for.
    Option("IPV6_TRANSPARENT", IPPROTO_IPV6, 75, 0, 1, 0, ipv6_only=True, privileged=True),
    Option("IPV6_FREEBIND", IPPROTO_IPV6, 78, 0, 1, 0, ipv6_only=True, saved_by_criu=True),
)

#: Every option that an ICI may carry, by kernel name, in the order in which they are set.
OPTIONS: Mapping[str, Option] = {option.name: option for option in _TABLE}


def problems(options: Mapping[str, int], *, ipv6_socket: bool) -> Sequence[str]:
    """What is wrong with *options* for a socket of that family: one sentence each, none when all is well."""
    return _problems(tuple(options.items()), ipv6_socket)


@lru_cache(256)  # most connections of a server have the same options
def _problems(options: tuple[tuple[str, int], ...], ipv6_socket: bool) -> tuple[str, ...]:
    return (*_each(options, ipv6_socket), *_locks(dict(options)))


def _each(options: tuple[tuple[str, int], ...], ipv6_socket: bool) -> Iterator[str]:
    for name, value in options:
        option = OPTIONS.get(name)
        if option and option.minimum <= value <= option.maximum and (ipv6_socket or not option.ipv6_only):
            continue
        if option is None:
            yield f"{name} is not an option that an ICI carries"
        elif option.ipv6_only and not ipv6_socket:
            yield f"{name} is set on an IPv4 socket"
        elif sentence := option.problem(value):
            yield sentence


def _locks(options: Mapping[str, int]) -> Iterator[str]:
    locks = options.get("SO_BUF_LOCK", 0)
    for name, bit in (("SO_SNDBUF", SNDBUF_LOCK), ("SO_RCVBUF", RCVBUF_LOCK)):
        if locks & bit and name not in options:
            yield f"SO_BUF_LOCK says that {name} is set, and it is not there"
