"""What the table of flows consists of, as messages for the kernel: its sets, chains and rules. Pure.

Sets of the table, each for IPv4 and IPv6:

- ``flows``: connections that were got or created here. Nothing of them arrives, nothing leaves. As long as their
  sockets are there nobody else has the same two ends. But one may have been closed, which nobody tells us: then
  somebody may connect with these ends. So a first SYN is let in: a socket that is there answers it with an
  acknowledgement, which does not leave (net/ipv4/tcp_input.c tcp_send_challenge_ack()), and no socket with a reset,
  which does not either. And a SYN that leaves is of a new connection, for a socket that is held sends none: a
  listener answers, or somebody connects. From then on these ends are nobody's here. A program that creates that
  connection anew says so to the tables of the others (`left_open`), by a datagram that it sends to itself: each
  table sees that as it leaves, before the filters of others, and forgets the connection that it names.
- ``passed``: connections that were released. There is no socket any more, and what still arrives for one must
  draw no reset. Nothing of them arrives, unless it is a connection that has come back (below), or there is a
  socket for it: with the same two ends somebody connects, or listens, today. And no bare reset leaves: a packet
  for each processor may have been past the filter when it came into force, and may stay there, with other filters
  behind ours or while a virtual processor does not run, until the socket is gone. And it keeps silent a listener
  that a late packet comes to, and a socket that connects in the place of one whose connection lives elsewhere:
  the peer would take the reset for that host's. A SYN is answered by a listener, as every other SYN to it.
- ``back``: connections that run here now while the table of another process still has them among those it
  has passed on. A chain before all others gives their packets' buffers a priority by which every table of
  ours knows them. Nothing else looks at that on a packet's way to a socket of this host. A bare reset of theirs
  is owed: the peer sends to a socket that has been closed since. No other table may keep it back, so the highest
  byte of its buffer's priority tells them, until the last of them has seen it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from tcpcp.endpoint import isolation
from tcpcp.endpoint.isolation import MARK, Flow, flow_sets
from tcpcp.kernel import nft_rules
from tcpcp.kernel.nft_elements import FLOW_KEY_BYTES, Message, changes

#: A priority that no program gives its packets.
_BACK = 0x7C9C_C114
#: In that of a bare reset which may leave. The other bits stay as they are: they may name a class of a queueing
#: discipline. This byte is 0 but for one with a handle of 100: or more.
_LET_OUT = nft_rules.Part(0x7C00_0000, among=0xFF00_0000)
_BEFORE_FIRST, _FIRST, _AFTER_FIRST = -301, -300, -299
_GONE, _HELD_IN, _HELD_OUT, _OURS = "gone", "held_in", "held_out", "ours"
#: In a TCP header.
_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10
_NUMBER = struct.Struct("!I")
_LENGTHS = {"4": 4, "6": 16}


def sets(*kinds: str) -> list[str]:
    """Their names, of both IP versions."""
    return [f"{kind}{version}" for kind in kinds for version in _LENGTHS]


class Optional(NamedTuple):
    """What not every kernel has, expressions; empty: it is done without.

    :ivar untracked: keeps connection tracking away from our own packets.
    :ivar has_socket: tells whether there is a socket for a packet. Without it none of those with the two ends of
        what was released gets any, whoever they are for.
    """

    untracked: list[bytes]
    has_socket: list[bytes]


class FlowRules(NamedTuple):
    """The messages that make the table *name*, and change it.

    :ivar number: of this table alone, 32 bits: what :func:`forgetting` was made with is not for it.
    """

    name: str
    number: int

    def table(self, flags: int, optional: Optional) -> list[Message]:
        """The whole table, with all but what :meth:`back` adds."""
        messages = [nft_rules.table(self.name, flags)]
        for kind in ("flows", "passed"):
            for version, size in _LENGTHS.items():
                messages.append(nft_rules.flow_set(self.name, f"{kind}{version}", len(messages), size))
        messages += [*_gone(self.name, optional.has_socket), *_held(self.name)]
        messages += _ours(self.name, self.number, optional.untracked)
        for chain, hook in (("input", nft_rules.LOCAL_IN), ("output", nft_rules.LOCAL_OUT)):
            messages.append(nft_rules.chain(self.name, chain, hook, _FIRST))
            messages += _rules(self.name, chain)
        return messages

    def back(self) -> list[Message]:
        """The chains before all others and behind them, and their sets."""
        sets = [
            nft_rules.flow_set(self.name, f"back{v}", n, size)
            for n, (v, size) in enumerate(_LENGTHS.items(), 1)
        ]
        tcp = nft_rules.is_equal(nft_rules.L4PROTO, b"\x06")
        bare = [*tcp, *nft_rules.is_reset()]
        return [
            *sets,
            nft_rules.chain(self.name, "back", nft_rules.LOCAL_IN, _BEFORE_FIRST),
            *self._each_back("back", [], nft_rules.set_priority(_BACK), outward=False),
            nft_rules.chain(self.name, "let_out", nft_rules.LOCAL_OUT, _BEFORE_FIRST),
            *self._each_back("let_out", bare, _LET_OUT.put(), outward=True),
            nft_rules.chain(self.name, "as_before", nft_rules.LOCAL_OUT, _AFTER_FIRST),
            nft_rules.rule(self.name, "as_before", bare, _LET_OUT.is_there(), _LET_OUT.clear()),
        ]

    def _each_back(self, chain: str, test: list[bytes], done: list[bytes], *, outward: bool) -> list[Message]:
        """Rules for the connections that are back, of both IP versions."""
        return [
            nft_rules.rule(self.name, chain, test, nft_rules.is_flow(f"back{v}", size, outward=outward), done)
            for v, size in _LENGTHS.items()
        ]

    def added(self, kind: str, flows: Sequence[Flow]) -> list[Message]:
        """Put *flows* into the sets of that *kind*, for a timeout."""
        return changes("add", self.name, flow_sets(kind, flows), isolation.TIMEOUT_S)

    def deleted(self, kind: str, flows: Sequence[Flow]) -> list[Message]:
        """Take them out. Fails where one of them is not there."""
        return changes("delete", self.name, flow_sets(kind, flows))

    def erased(self, kind: str, flows: Sequence[Flow]) -> list[Message]:
        """Does not: what is not there is put there first."""
        return [*self.added(kind, flows), *self.deleted(kind, flows)]


def forgetting(number: int, flow: Flow) -> bytes:
    """What a datagram with our mark has to say for all tables but that of *number* to forget *flow*."""
    return _NUMBER.pack(number) + flow.key


def _gone(name: str, has_socket: list[bytes]) -> list[Message]:
    """The chain for what arrives with the two ends of a connection that was released."""
    accept, drop = nft_rules.verdict(nft_rules.ACCEPT), nft_rules.verdict(nft_rules.DROP)
    spared = [nft_rules.rule(name, _GONE, has_socket, accept)] if has_socket else []
    return [nft_rules.branch(name, _GONE), *spared, nft_rules.rule(name, _GONE, drop)]


def _held(name: str) -> list[Message]:
    """The chains for what arrives with the two ends of a connection that is held, and for what leaves."""
    accept, drop = nft_rules.verdict(nft_rules.ACCEPT), nft_rules.verdict(nft_rules.DROP)
    first = nft_rules.has_tcp_flags(_SYN, _FIN | _SYN | _RST | _ACK)
    begins = nft_rules.has_tcp_flags(_SYN, _SYN)
    return [
        nft_rules.branch(name, _HELD_IN),
        nft_rules.rule(name, _HELD_IN, first, accept),
        nft_rules.rule(name, _HELD_IN, drop),
        nft_rules.branch(name, _HELD_OUT),
        *(
            nft_rules.rule(
                name, _HELD_OUT, begins, nft_rules.forget_flow(f"flows{v}", size, outward=True), accept
            )
            for v, size in _LENGTHS.items()
        ),
        nft_rules.rule(name, _HELD_OUT, drop),
    ]


def _ours(name: str, number: int, untracked: list[bytes]) -> list[Message]:
    """The chain for what leaves with our mark: what is fed, and what says which connection is another's now."""
    start, others = _NUMBER.size, nft_rules.has_other_data(0, _NUMBER.pack(number))
    accept, messages = nft_rules.verdict(nft_rules.ACCEPT), [nft_rules.branch(name, _OURS)]
    for v, size in FLOW_KEY_BYTES.items():
        told = [*nft_rules.has_datagram(start + size), *others]
        messages.append(nft_rules.rule(name, _OURS, told, nft_rules.forget_data(f"flows{v}", start, size)))
    fed = nft_rules.is_equal(nft_rules.L4PROTO, b"\x06")
    return [*messages, nft_rules.rule(name, _OURS, fed, untracked, accept)]


def _rules(name: str, chain: str) -> list[Message]:
    outward = chain == "output"
    accept, drop = nft_rules.verdict(nft_rules.ACCEPT), nft_rules.verdict(nft_rules.DROP)
    held = nft_rules.goto(_HELD_OUT if outward else _HELD_IN)
    ours = nft_rules.goto(_OURS) if outward else accept
    tests = [
        (nft_rules.is_equal(nft_rules.MARK, struct.pack("=I", MARK)), ours),
        (nft_rules.is_other(nft_rules.L4PROTO, b"\x06"), accept),
        *((nft_rules.is_flow(f"flows{v}", n, outward=outward), held) for v, n in _LENGTHS.items()),
    ]
    passed = [nft_rules.is_flow(f"passed{v}", n, outward=outward) for v, n in _LENGTHS.items()]
    if outward:  # one that has come back may send
        tests += [([*nft_rules.is_reset(), *_LET_OUT.is_missing(), *test], drop) for test in passed]
    else:
        tests.append((nft_rules.is_equal(nft_rules.PRIORITY, struct.pack("=I", _BACK)), accept))
        tests += [(test, nft_rules.goto(_GONE)) for test in passed]
    return [nft_rules.rule(name, chain, test, verdict) for test, verdict in tests]
