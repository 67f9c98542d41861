"""The walk over the space: endpoints of every sort are passed on, and nothing about them may have changed.

Two hundred cases drawn by chance in each run; SPACE_FIRST and SPACE_CASES say where to begin and how many.
``make facts-all`` takes every shape with all that is agreed and all kinds of address. To repeat one::

    python tests/facts/test_space.py NUMBER
    python tests/facts/test_space.py '{"shape": ["CLOSING", false, "unsent"]}'
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import pytest
import space_judges as judges
from space_case import Case, draw, every
from space_pairs import Pair, World, announced, build, peer_namespace
from space_states import SND_WND, both_gone, bring, info, live_on, talk
from space_wire import Side, Wire, faults, kind_of

import tcpcp
from tcpcp.endpoint import isolation
from tcpcp.kernel import nft
from tcpcp.record.ici import FIN_ACKED

FIRST = int(os.environ.get("SPACE_FIRST", "1"))
CASES = int(os.environ.get("SPACE_CASES", "200"))
#: A test for so many, so that one that fails does not hide the others.
BATCH = 50


class Worlds:
    """The hosts, made once and used for case after case."""

    def __init__(self) -> None:
        self._by_mtu: dict[int, World] = {}
        # Two processors may overtake each other on a veth device, and what a capture sees is out of order.
        self._processors = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(self._processors)})

    def of(self, case: Case) -> World:
        if case.mtu not in self._by_mtu:
            self._by_mtu[case.mtu] = World(case.mtu)
        return self._by_mtu[case.mtu]

    def close(self) -> None:
        nft.close()
        os.sched_setaffinity(0, self._processors)
        for world in self._by_mtu.values():
            world.close()


class Walk:
    """One case from its beginning to its end, and all that was wrong.

    :ivar brought: the connection was made and brought to where it is to be passed.
    :ivar pass_s: how long one pass took on average; of a control, how long it waits instead.
    """

    def __init__(self, world: World, case: Case, pass_s: float | None = None) -> None:
        """:param pass_s: as a control, nothing is passed, and all else is the same, the time that it takes too."""
        self.world, self.case, self.wrong = world, case, []
        self.passing, self.brought, self.pass_s = pass_s is None, False, pass_s or 0.0

    def run(self) -> list[str]:
        """Sentences; none when all is well."""
        world, case = self.world, self.case
        peers = peer_namespace(world, case)
        world.as_before(peers)
        before = [judges.counters(one) for one in (world.here, peers)]
        device = "lo" if case.over == "lo" else "here0"  # where what we send is seen in the order of sending
        scales = (0, 0)
        wire = Wire(world.here, device, isolation.MARK)
        pair = None
        try:
            pair = build(world, case)
            scales = self._scales(pair)
            bring(pair, case)
            self.brought = True
            (self._pass_all if self.passing else self._stay)(pair)
            live_on(pair, case)
            both_gone(pair)
        except (AssertionError, OSError, tcpcp.TcpcpError) as exc:
            self.wrong.append(f"{type(exc).__name__}: {exc} ({_where(exc)})")
        finally:
            if pair:
                pair.here.close()
                pair.there.close()
        after = [judges.counters(one) for one in (world.here, peers)]
        if pair:
            late = self._on_the_wire(wire, pair, scales)
            for who, old, new in zip(("here", "there"), before, after, strict=True):
                released = case.passes * self.passing * (who == "here" or peers is world.here)
                self.wrong += judges.counted(old, new, who, released, late)
        wire.close()
        return self.wrong

    def _scales(self, pair: Pair) -> tuple[int, int]:
        """By how much our windows and the peer's are shifted on the wire, as the first sockets say."""
        if not self.case.scaling:
            return 0, 0
        both = info(pair.here, 6, 1)
        return both >> 4, both & 15

    def _pass_all(self, pair: Pair) -> None:
        last, began = None, 0.0
        for turn in range(self.case.passes):
            now = time.monotonic()
            with self.world.here.entered():
                ici = self._pass(pair, ss=turn < 2)
            self.pass_s += (time.monotonic() - now) / self.case.passes
            if last is not None:
                self._note(turn, judges.ici_kept(last, ici, self.case, time.monotonic() - began))
            last, began = ici, now
            if self.wrong:
                return
            if self.case.talk:
                talk(pair, self.case, turn)

    def _stay(self, pair: Pair) -> None:
        """What :meth:`_pass_all` does besides, so that what it finds is found here too if it is not ours."""
        last = None
        for turn in range(self.case.passes):
            edge = judges.window_edge(pair.here)
            time.sleep(self.pass_s)
            if last is not None:
                self._note(turn, judges.edge_kept("ours", last, edge))
            last = edge
            if self.case.talk:
                talk(pair, self.case, turn)

    def _pass(self, pair: Pair, ss: bool) -> tcpcp.Ici:
        """get, release, create, activate; what was read before and after is compared."""
        sock, case = pair.here, self.case
        options = judges.options(sock)
        by_ss = judges.ss(self.world.here, pair) if ss else {}
        before = judges.in_use(sock)
        ici = tcpcp.get(sock)
        got = judges.frozen(sock)
        self._note(0, judges.read(before, got, ici))
        # While the send queue is selected, as it was in between, what a timer sends counts as sent, and is
        # not (tcp_write_xmit() "repair").
        unsent = len(ici.send_queue.unsent) + (ici.send_queue.fin and not ici.send_queue.fin_sent)
        got["outq_nsd"] = max(got["outq_nsd"], unsent if ici.state not in FIN_ACKED else 0)
        tcpcp.release(sock)
        with judges.Stall() as stall:
            pair.here = tcpcp.create(tcpcp.loads(tcpcp.dumps(ici)), same_path=case.same_path)
            made = judges.frozen(pair.here)
        stamp = ici.timestamp.value if ici.timestamp else None
        self._note(0, judges.rebuilt(got, made, case, stamp, stall.us))
        tcpcp.activate(pair.here)
        pair.here.setblocking(False)
        window = info(pair.here, SND_WND)
        self._note(0, judges.options_kept(options, judges.options(pair.here), case, window))
        if ss:
            self._note(0, judges.ss_kept(by_ss, judges.ss(self.world.here, pair), case))
        return ici

    def _note(self, turn: int, found: Iterable[str]) -> None:
        self.wrong += [f"pass {turn}: {one}" if turn else one for one in found]

    def _on_the_wire(self, wire: Wire, pair: Pair, scales: tuple[int, int]) -> int:
        """Judges the capture; returns how many resets came after the end."""
        case = self.case
        option = 12 if case.stamps else 0
        here = Side(pair.here_isn, bytes(pair.here_wrote), scales[0], announced(case, 1) - option, True)
        there = Side(pair.there_isn, bytes(pair.there_wrote), scales[1], announced(case, 0) - option, False)
        self.wrong += faults(wire.packets(), {pair.here_end: here, pair.there_end: there}, bool(case.stamps))
        if there.again and case.state != "CLOSING":  # its FIN was sent to us, whose answer it did not hear
            self.wrong.append(f"the peer sent {there.again} segments again")
        return here.late + there.late


def _where(exc: BaseException) -> str:
    frames = traceback.extract_tb(exc.__traceback__)
    return " <- ".join(f"{Path(one.filename).name}:{one.lineno}" for one in reversed(frames[-3:]))


def walk(worlds: Worlds, case: Case) -> list[str]:
    """What is wrong with *case*, and is not wrong as well where nothing is passed."""
    world = worlds.of(case)
    it = Walk(world, case)
    if not it.run() or not it.brought:
        return it.wrong
    # A timer that runs out in that time, as it does not in what is isolated, may make the difference: so both.
    known = {kind_of(one) for pass_s in (0.0, it.pass_s) for one in Walk(world, case, pass_s).run()}
    return [one for one in judges.but_for_room(it.wrong, case) if kind_of(one) not in known]


def report(worlds: Worlds, cases: Iterable[Case]) -> str:
    """A paragraph for each case that is not well."""
    found = []
    for case in cases:
        if wrong := walk(worlds, case):
            found.append("\n    ".join([f"{case.number}: {case.line()}", *wrong[:12]]))
    return "\n".join(found)


@pytest.fixture(scope="module")
def worlds() -> Iterator[Worlds]:
    if os.geteuid():
        pytest.skip("needs root: makes network namespaces")
    worlds = Worlds()
    yield worlds
    worlds.close()


@pytest.mark.parametrize("first", range(FIRST, FIRST + CASES, BATCH))
@pytest.mark.timeout(600)
def test_drawn(worlds: Worlds, first: int) -> None:
    failed = report(worlds, map(draw, range(first, min(first + BATCH, FIRST + CASES))))
    assert not failed, failed


@pytest.mark.skipif("SPACE_ALL" not in os.environ, reason="takes long: make facts-all")
@pytest.mark.timeout(4 * 3600)
def test_all_combinations(worlds: Worlds) -> None:
    failed = report(worlds, every())
    assert not failed, failed


def main() -> int:
    worlds = Worlds()
    wrong = 0
    for word in sys.argv[1:]:
        case = Case.of(word) if word.startswith("{") else draw(int(word))
        print(f"{case.number}: {case.line()}")
        began = time.monotonic()
        lines = walk(worlds, case)
        print(f"    {time.monotonic() - began:.2f} s")
        print("".join(f"    {line}\n" for line in lines or ["all is well"]), end="")
        wrong += bool(lines)
    worlds.close()
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
