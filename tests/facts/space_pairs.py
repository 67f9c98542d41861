"""Hosts for the walk, and connections between them: by a handshake, or out of nothing by repair mode.

Uses nothing of the library that is judged: the calls of repair mode are made here by number.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from netns import Hosts, Namespace, ip
from space_case import OPTIONS, Case

TCP = socket.IPPROTO_TCP
REPAIR, QUEUE, QUEUE_SEQ, REPAIR_OPTIONS, TIMESTAMP, WINDOW = 19, 20, 21, 22, 24, 29
NO_QUEUE, RECEIVE, SEND = 0, 1, 2
_MSS, _SCALE, _SACK, _STAMP = 2, 3, 4, 8
IP_OPTIONS, IPV6_2292PKTOPTIONS = 4, 6

_ports = itertools.count(20_000)
#: Sysctls that a case changes, and what they are between cases.
_SYSCTLS = {
    "ipv4/tcp_window_scaling": 1,
    "ipv4/tcp_sack": 1,
    "ipv4/tcp_timestamps": 1,
    "ipv4/tcp_ecn": 2,
    "ipv4/tcp_notsent_lowat": 2**32 - 1,
    "ipv4/tcp_early_retrans": 3,
    "ipv6/bindv6only": 0,
}


def sysctl(namespace: Namespace, **values: int) -> None:
    """Set some of net.ipv4 (or, for bindv6only, net.ipv6) in *namespace*."""
    with namespace.entered():
        for name, value in values.items():
            family = "ipv6" if name == "bindv6only" else "ipv4"
            Path(f"/proc/sys/net/{family}/{name}").write_text(str(int(value)))


class World(Hosts):
    """Two hosts, used for one case after another, whose devices have one MTU and join no segments."""

    def __init__(self, mtu: int) -> None:
        super().__init__()
        self.mtu = mtu
        self._dirty: set[Namespace] = set()
        for namespace, device, host in ((self.here, "here0", 1), (self.there, "there0", 2)):
            with namespace.entered():
                ip(f"link set {device} mtu {mtu} gso_max_segs 1")
                ip("link set lo gso_max_segs 1")
                if mtu >= 1280:
                    ip(f"addr add fe80::{host}/64 dev {device} nodad")
                # What one case was told of the path is not to teach the next.
                Path("/proc/sys/net/ipv4/tcp_no_metrics_save").write_text("1")

    def as_before(self, peers: Namespace) -> None:
        """Between two cases.

        *peers* does not probe for a lost tail: it would a few ms after the last segment, when this process,
        which is to read that and so have it acknowledged, may not have had a processor yet. That would look as
        if we had lost something.
        """
        values = {name.split("/")[1]: value for name, value in _SYSCTLS.items()}
        for namespace in (self.here, self.there):
            sysctl(namespace, **values)
        sysctl(peers, tcp_early_retrans=0)

    @contextlib.contextmanager
    def advmss(self, size: int) -> Iterator[None]:
        """Here's route to the peer announces segments of *size* bytes; 0: as the device's MTU says."""
        route = "route replace 10.9.0.0/24 dev here0 proto kernel scope link src 10.9.0.1"
        if size:
            with self.here.entered():
                ip(f"{route} advmss {size}")
        yield
        if size:
            with self.here.entered():
                ip(route)


@dataclass
class Pair:
    """Both ends, and what is known of them.

    :ivar here_wrote, there_wrote: all bytes that either application has written.
    :ivar here_read, there_read: all that either has read.
    :ivar here_isn, there_isn: sequence number of the first of them.
    """

    here: socket.socket
    there: socket.socket
    here_end: tuple[str, int]
    there_end: tuple[str, int]
    here_isn: int = 0
    there_isn: int = 0
    here_wrote: bytearray = field(default_factory=bytearray)
    there_wrote: bytearray = field(default_factory=bytearray)
    here_read: bytearray = field(default_factory=bytearray)
    there_read: bytearray = field(default_factory=bytearray)


def peer_namespace(world: World, case: Case) -> Namespace:
    return world.here if case.over == "lo" else world.there


def build(world: World, case: Case) -> Pair:
    """The connection of *case*, ESTABLISHED, with nothing in its queues; then here's sysctls for the passes."""
    with world.advmss(case.advmss):
        pair = _by_repair(world, case) if case.made == "repair" else _by_handshake(world, case)
    for name, value in case.options:
        level, number, _ = OPTIONS[name]
        pair.here.setsockopt(level, number, value)
    off = int(not case.elsewhere)
    sysctl(world.here, tcp_window_scaling=off, tcp_sack=off, tcp_timestamps=off, bindv6only=int(case.only))
    if case.lowat:
        sysctl(world.here, tcp_notsent_lowat=case.lowat)
    for sock in (pair.here, pair.there):
        sock.setblocking(False)
    return pair


def _families(case: Case) -> tuple[int, int]:
    here = socket.AF_INET if case.kind == "v4" else socket.AF_INET6
    return here, socket.AF_INET6 if case.version == 6 else socket.AF_INET


def _ends(world: World, case: Case) -> tuple[str, str]:
    """Addresses as they are on the wire."""
    if case.kind == "link-local":
        return "fe80::1", "fe80::2"
    here = world.here_ip[case.version]
    return here, here if case.over == "lo" else world.there_ip[case.version]


def _address(
    case: Case, namespace: Namespace, sock: socket.socket, ip_: str, port: int, device: str
) -> tuple:
    if sock.family == socket.AF_INET:
        return ip_, port
    if ":" not in ip_:
        return f"::ffff:{ip_}", port, 0, 0
    return ip_, port, 0, socket.if_nametoindex(device) if case.kind == "link-local" else 0


def _prepare(sock: socket.socket, case: Case, here: bool) -> None:
    """What a program sets before it connects."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    announced = case.mss[0 if here else 1]
    if 88 <= announced <= 32767:
        sock.setsockopt(TCP, socket.TCP_MAXSEG, announced)
    sock.setsockopt(TCP, socket.TCP_CONGESTION, case.algorithm.encode())
    for number, value in ((socket.SO_RCVBUF, case.rcvbuf if here else case.there_rcvbuf),
                          (socket.SO_SNDBUF, case.sndbuf if here else 0)):  # fmt: skip
        if value:
            sock.setsockopt(socket.SOL_SOCKET, number, value)


def _by_handshake(world: World, case: Case) -> Pair:
    """The peer connects to us; it is the peer that has not got what is not agreed."""
    peers = peer_namespace(world, case)
    sysctl(
        peers, tcp_window_scaling=int(case.scaling), tcp_sack=int(case.sack), tcp_timestamps=bool(case.stamps)
    )
    for one in {world.here, peers}:
        sysctl(one, tcp_ecn=1 if case.ecn else 2)
    families, ips = _families(case), _ends(world, case)
    with world.here.entered(), socket.socket(families[0]) as listener:
        _prepare(listener, case, True)
        listener.bind(_address(case, world.here, listener, ips[0], next(_ports), "here0"))
        listener.listen()
        port = listener.getsockname()[1]
        with peers.entered():
            there = socket.socket(families[1])
            _prepare(there, case, False)
            there.bind(_address(case, peers, there, ips[1], next(_ports), "there0"))
            there.connect(_address(case, peers, there, ips[0], port, "there0"))
        here, _ = listener.accept()
    here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    pair = Pair(here, there, (ips[0], port), (ips[1], there.getsockname()[1]))
    pair.here_isn, pair.there_isn = (sequences(sock)[0] for sock in (here, there))
    return pair


# --- by repair mode -------------------------------------------------------------------------------------


@contextlib.contextmanager
def repaired(sock: socket.socket) -> Iterator[None]:
    """In repair mode, and as it was afterwards: leaving clears SO_REUSEADDR."""
    reuse = sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    sock.setsockopt(TCP, REPAIR, 1)
    yield
    sock.setsockopt(TCP, REPAIR, -1)
    if reuse:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def sequences(sock: socket.socket) -> tuple[int, int]:
    """write_seq and rcv_nxt of a socket that is not in repair mode."""
    with repaired(sock):
        return queue_seq(sock, SEND), queue_seq(sock, RECEIVE)


def queue_seq(sock: socket.socket, queue: int) -> int:
    sock.setsockopt(TCP, QUEUE, queue)
    return sock.getsockopt(TCP, QUEUE_SEQ) % 2**32


def jump(sock: socket.socket, value: int) -> None:
    """Let the clock of the timestamps go on from *value*, whose bit 0 says the unit."""
    with repaired(sock):
        sock.setsockopt(TCP, TIMESTAMP, struct.pack("=I", value % 2**32))


def stamp_near_wrap(case: Case, ticks: int) -> int:
    """A value *ticks* before the wrap, with the unit's bit."""
    return (2**32 - ticks) & ~1 | (case.stamps == "us")


def _by_repair(world: World, case: Case) -> Pair:
    chance = Random(f"sequences {case.number}")
    isns = [
        2**32 - chance.randint(1, 3000) if name in case.wrap else chance.getrandbits(32)
        for name in ("snd", "rcv")
    ]
    for one in {world.here, peer_namespace(world, case)}:
        sysctl(
            one,
            tcp_window_scaling=int(case.scaling),
            tcp_sack=int(case.sack),
            tcp_timestamps=bool(case.stamps),
        )
    ips, ports = _ends(world, case), (next(_ports), next(_ports))
    ends = [(ips[0], ports[0]), (ips[1], ports[1])]
    made = []
    for mine, namespace in enumerate((world.here, peer_namespace(world, case))):
        with namespace.entered():
            sock = socket.socket(_families(case)[mine])
            _connect(sock, case, mine, ends, isns)
            _agree(sock, case, mine)
            made.append(sock)
    _open_windows(case, made, isns)
    for sock in made:
        sock.setsockopt(TCP, REPAIR, -1)
    return Pair(made[0], made[1], ends[0], ends[1], isns[0], isns[1])


def _connect(
    sock: socket.socket, case: Case, mine: int, ends: list[tuple[str, int]], isns: list[int]
) -> None:
    device = ("here0", "there0")[mine]
    _prepare(sock, case, mine == 0)
    sock.setsockopt(TCP, REPAIR, 1)
    sock.bind(_address(case, None, sock, *ends[mine], device))
    for queue, value in ((SEND, isns[mine]), (RECEIVE, isns[1 - mine])):
        sock.setsockopt(TCP, QUEUE, queue)
        sock.setsockopt(TCP, QUEUE_SEQ, struct.pack("=I", value))
    # connect() guesses from half of this how large the peer's segments are; without, 88 (tcp_connect_init()).
    nxt = isns[1 - mine]
    sock.setsockopt(TCP, WINDOW, struct.pack("=5I", nxt, 0, 0, 2 * 536, nxt))
    sock.setsockopt(TCP, QUEUE, NO_QUEUE)
    if not case.scaling:
        sock.setsockopt(TCP, socket.TCP_WINDOW_CLAMP, 65535)  # as tcp_create_openreq_child() does
    sock.connect(_address(case, None, sock, *ends[1 - mine], device))


def announced(case: Case, mine: int) -> int:
    """The MSS that side *mine* has told the other."""
    mtu = 65_536 - (case.version == 4) if case.over == "lo" else case.mtu  # an IPv4 packet has 65535 bytes
    largest = mtu - (60 if case.version == 6 else 40)
    if not mine and case.advmss:
        largest = min(largest, case.advmss)
    return min(case.mss[mine], largest) if case.mss[mine] else largest


def _agree(sock: socket.socket, case: Case, mine: int) -> None:
    """What the handshake would have."""
    agreed = [(_MSS, announced(case, 1 - mine))]
    if case.scaling:
        agreed.append((_SCALE, case.wscale[1 - mine] | case.wscale[mine] << 16))
    if case.sack:
        agreed.append((_SACK, 0))
    if case.stamps:
        agreed.append((_STAMP, 0))
    sock.setsockopt(TCP, REPAIR_OPTIONS, b"".join(struct.pack("=II", *one) for one in agreed))
    if case.stamps:
        chance = Random(f"clock {case.number} {mine}")
        # Far enough before the wrap that it is reached in the gap, where jump() lets it go on.
        start = stamp_near_wrap(case, 10**7) if "ts" in case.wrap else chance.getrandbits(31)
        sock.setsockopt(TCP, TIMESTAMP, struct.pack("=I", start & ~1 | (case.stamps == "us")))


def _open_windows(case: Case, made: list[socket.socket], isns: list[int]) -> None:
    """Each can send what the other can take, and what a segment can say."""
    room = []
    for mine, sock in enumerate(made):
        own = struct.unpack("=5I", sock.getsockopt(TCP, WINDOW, 20))[3]
        shift = case.wscale[mine] if case.scaling else 0
        room.append(max(min(own, 65535 << shift) >> shift, 1) << shift)
    for mine, sock in enumerate(made):
        other = 1 - mine
        window = (isns[other], room[other], room[other], room[mine], isns[other])
        sock.setsockopt(TCP, WINDOW, struct.pack("=5I", *window))
        _resize(sock, case)


def _resize(sock: socket.socket, case: Case) -> None:
    """The segment size computed anew, from what was agreed and half of the largest window."""
    if case.version == 4:
        sock.setsockopt(socket.IPPROTO_IP, IP_OPTIONS, b"")
        return
    for value in (b"\0" * 4, b""):
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_2292PKTOPTIONS, value)
