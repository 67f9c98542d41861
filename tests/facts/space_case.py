"""One point of the space that the walk goes over: how a connection was made, what waits, what passes it.

A case is drawn from a number and repeated by it, or by its line (:meth:`Case.line`), which says only what is
not the default. Nothing here touches the kernel.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

#: State of our end, whether something is unread, and what our send queue holds.
Shape = tuple[str, bool, str]
SENDS = ("none", "sent", "unsent", "both")
SHAPES: tuple[Shape, ...] = (
    *itertools.product(
        ("ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT1", "LAST_ACK", "CLOSING"), (False, True), SENDS
    ),
    ("FIN_WAIT2", False, "none"),
    ("FIN_WAIT2", True, "none"),
    ("CLOSE", True, "none"),
)
KINDS = ("v4", "v6", "mapped", "link-local")
#: Window scaling, SACK, and the unit of the timestamps, "" for none.
FLAGS = tuple(itertools.product((True, False), (True, False), ("ms", "us", "")))
MTUS = (576, 1500, 9000, 65535)
PASSES = (1, 5, 100)
#: States with a FIN of ours that the peer has not acknowledged.
FIN_UNACKED = frozenset({"FIN_WAIT1", "LAST_ACK", "CLOSING"})

#: Options that a program may have set: level, number, values. Level 0 is for IPv4 packets, 41 for IPv6.
OPTIONS: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "SO_KEEPALIVE": (1, 9, (1,)),
    "SO_OOBINLINE": (1, 10, (1,)),
    "SO_REUSEADDR": (1, 2, (1,)),
    "SO_REUSEPORT": (1, 15, (1,)),
    "SO_DONTROUTE": (1, 5, (1,)),
    "SO_PRIORITY": (1, 12, (1, 6)),
    "SO_RCVLOWAT": (1, 18, (2, 500)),
    "SO_MARK": (1, 36, (77, 0x7FFFFFFF)),
    "SO_MAX_PACING_RATE": (1, 47, (50_000_000,)),
    "SO_PEEK_OFF": (1, 42, (0, 3)),
    "SO_BUSY_POLL": (1, 46, (20,)),
    "SO_TIMESTAMP": (1, 29, (1,)),
    "SO_TXREHASH": (1, 74, (0,)),
    "TCP_NODELAY": (6, 1, (1,)),
    "TCP_KEEPIDLE": (6, 4, (90,)),
    "TCP_KEEPINTVL": (6, 5, (33,)),
    "TCP_KEEPCNT": (6, 6, (4,)),
    "TCP_LINGER2": (6, 8, (20, -1)),
    "TCP_WINDOW_CLAMP": (6, 10, (6000, 20000)),
    "TCP_THIN_LINEAR_TIMEOUTS": (6, 16, (1,)),
    "TCP_USER_TIMEOUT": (6, 18, (60_000,)),
    "TCP_NOTSENT_LOWAT": (6, 25, (1, 1000, 16384)),
    "TCP_INQ": (6, 36, (1,)),
    "TCP_RTO_MAX_MS": (6, 44, (5000,)),
    "TCP_RTO_MIN_US": (6, 45, (100_000,)),
    "TCP_DELACK_MAX_US": (6, 46, (20_000,)),
    "IP_TOS": (0, 1, (0x10, 0xB8)),
    "IP_TTL": (0, 2, (33,)),
    "IP_MTU_DISCOVER": (0, 10, (0, 2, 3)),
    "IP_RECVERR": (0, 11, (1,)),
    "IP_MINTTL": (0, 21, (10,)),
    "IPV6_UNICAST_HOPS": (41, 16, (44,)),
    "IPV6_MTU_DISCOVER": (41, 23, (0, 3)),
    "IPV6_RECVERR": (41, 25, (1,)),
    "IPV6_TCLASS": (41, 67, (0x20,)),
    "IPV6_MINHOPCOUNT": (41, 73, (5,)),
}
ALGORITHMS = ("cubic", "reno", "bbr")


@dataclass(frozen=True)
class Case:
    """One connection and what is done with it; our end is *here*, the peer's *there*.

    :ivar number: of the random bytes. :ivar shape: see :data:`Shape`.
    :ivar kind: of our socket and its addresses. :ivar over: veth, or lo where both ends are on one host.
    :ivar mtu: of the veth devices; the loopback's is 65536.
    :ivar made: by a handshake, or by repair mode, which alone can choose sequence numbers.
    :ivar scaling, sack, stamps: what is agreed; *stamps* is ms, us or "".
    :ivar wscale: our and the peer's shift, made by repair only.
    :ivar mss: what we and the peer announce, 0 for what the route says. :ivar advmss: of here's route, or 0.
    :ivar lost: what was sent is lost on the way; else it arrived and the acknowledgement is lost.
    :ivar wrap: which of snd, rcv and ts wrap from the beginning to the end, made by repair only.
    :ivar passes: how often the endpoint is passed. :ivar talk: bytes go both ways in between.
    :ivar rcvbuf, sndbuf, there_rcvbuf: set by the application before it connects; 0: tuned by the kernel.
    :ivar lowat: net.ipv4.tcp_notsent_lowat here; 0 for the default.
    :ivar only: net.ipv6.bindv6only here. :ivar elsewhere: here's sysctls say no to scaling, SACK and stamps.
    :ivar first: who closes first where nobody has.
    """

    number: int = 0
    shape: Shape = ("ESTABLISHED", False, "none")
    kind: str = "v4"
    over: str = "veth"
    mtu: int = 1500
    made: str = "handshake"
    scaling: bool = True
    sack: bool = True
    stamps: str = "ms"
    wscale: tuple[int, int] = (7, 7)
    mss: tuple[int, int] = (0, 0)
    advmss: int = 0
    ecn: bool = False
    lost: bool = False
    wrap: tuple[str, ...] = ()
    passes: int = 1
    talk: bool = False
    same_path: bool = False
    algorithm: str = "cubic"
    options: tuple[tuple[str, int], ...] = ()
    rcvbuf: int = 0
    sndbuf: int = 0
    there_rcvbuf: int = 0
    lowat: int = 0
    only: bool = False
    elsewhere: bool = False
    first: str = "here"

    @property
    def state(self) -> str:
        return self.shape[0]

    @property
    def unread(self) -> bool:
        return self.shape[1]

    @property
    def send(self) -> str:
        return self.shape[2]

    @property
    def version(self) -> int:
        """Of the IP packets."""
        return 6 if self.kind in ("v6", "link-local") else 4

    @property
    def deaf(self) -> bool:
        """The peer hears nothing while the endpoint is passed, or it would acknowledge what is not to be."""
        return self.state in FIN_UNACKED or self.send in ("sent", "both")

    def line(self) -> str:
        """What repeats the case, as JSON on one line."""
        default = Case()
        own = dataclasses.asdict(self).items()
        return json.dumps({name: value for name, value in own if value != getattr(default, name)})

    @staticmethod
    def of(line: str) -> Case:
        """The case of :meth:`line`."""
        return Case(**{name: _tuples(value) for name, value in json.loads(line).items()})


def _tuples(value: object) -> object:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value


def draw(number: int) -> Case:
    """The case of *number*: any point of the space."""
    chance = Random(number)
    flags = chance.choice(FLAGS) if chance.random() < 0.6 else (True, True, "ms")
    return _rest(number, chance.choice(SHAPES), flags, chance.choice(KINDS))


def every() -> Iterator[Case]:
    """Each shape with all flags and all kinds of address; the rest is drawn for each."""
    for number, (shape, flags, kind) in enumerate(itertools.product(SHAPES, FLAGS, KINDS)):
        yield _rest(10**6 + number, shape, flags, kind)


def _rest(number: int, shape: Shape, flags: tuple[bool, bool, str], kind: str) -> Case:
    chance = Random(f"rest {number}")
    scaling, sack, stamps = flags
    repair = stamps == "us" or chance.random() < 0.5  # microseconds are agreed by the route, or set by repair
    over = "lo" if kind != "link-local" and chance.random() < 0.15 else "veth"
    mtu = chance.choice(MTUS if kind in ("v4", "mapped") else MTUS[1:])
    quiet = shape[0] == "ESTABLISHED" and shape[1:] == (False, "none")
    lost = chance.random() < 0.4
    mss = _mss(chance, repair), _mss(chance, repair)
    full = shape[2] in ("unsent", "both")
    if full and 0 < mss[1] < 500:  # else a thousand small segments fill the peer's buffer before its window
        mss = mss[0], 536
    if shape[2] == "unsent" and shape[0] not in FIN_UNACKED and 88 <= mss[0] < 500:
        mss = 536, mss[1]  # likewise: TCP_MAXSEG limits what its socket sends too
    return Case(
        number=number,
        shape=shape,
        kind=kind,
        over=over,
        mtu=1500 if over == "lo" else mtu,
        made="repair" if repair else "handshake",
        scaling=scaling,
        sack=sack,
        stamps=stamps,
        wscale=(chance.randint(0, 14), chance.randint(0, 7 if full else 14))
        if scaling and repair
        else (0, 0),
        mss=mss,
        advmss=chance.choice((0, 0, 0, 536, 1000)) if over == "veth" and kind == "v4" else 0,
        ecn=not repair and chance.random() < 0.2,
        lost=lost,
        wrap=tuple(name for name in ("snd", "rcv", "ts") if repair and chance.random() < 0.5),
        passes=chance.choices(PASSES, (10, 6, 1))[0],
        talk=quiet and chance.random() < 0.7,
        # Without a known round-trip time the first retransmission takes 3 s: seldom waited for.
        same_path=chance.random() < (0.9 if lost else 0.5),
        algorithm=chance.choice(ALGORITHMS),
        options=_options(chance, kind),
        rcvbuf=chance.choice((0, 0, 0, 2304, 30_000, 1_000_000)),
        sndbuf=500_000 if full else chance.choice((0, 0, 0, 20_000, 500_000)),
        there_rcvbuf=chance.choice((6000, 40_000) if full else (0, 0, 6000, 40_000)),
        lowat=chance.choice((0, 0, 0, 1, 16384)),
        only=chance.random() < 0.2,
        elsewhere=chance.random() < 0.2,
        first=chance.choice(("here", "there")),
    )


def _mss(chance: Random, repair: bool) -> int:
    """Announced; TCP_MAXSEG takes 88 to 32767, and only repair mode can make one beyond."""
    if chance.random() < 0.5:
        return 0
    return chance.choice(
        (60, 88, 100, 536, 1460, 9000, 32767, 40_000, 65_495) if repair else (88, 89, 536, 1400)
    )


def _options(chance: Random, kind: str) -> tuple[tuple[str, int], ...]:
    if chance.random() < 0.5:
        return ()
    unfit = {"v4": 41, "v6": 0, "link-local": 0}.get(kind)
    fit = [name for name, (level, _, _) in OPTIONS.items() if level != unfit]
    names = sorted(chance.sample(fit, chance.randint(1, 8)))
    return tuple((name, chance.choice(OPTIONS[name][2])) for name in names)
