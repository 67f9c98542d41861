"""`tcpcp.passing`: what holds after its block, however that ends. The judge is each connection's peer."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import pytest
from alarm import Alarm
from forking import ended
from helpers import environment
from netns import Hosts, eventually
from passing import assert_no_reset
from programs import threads_named

import tcpcp
from tcpcp.endpoint import block, calls, flow_rules, isolation
from tcpcp.kernel import tcp_repair

pytestmark = pytest.mark.alone


class Wrong(Exception):
    """What a body raises."""


Pair = tuple[socket.socket, socket.socket]


def alive(sock: socket.socket, peer: socket.socket) -> None:
    """Both directions work."""
    for one, other in ((sock, peer), (peer, sock)):
        other.settimeout(3)
        one.sendall(b"alive")
        assert other.recv(100) == b"alive"


@pytest.fixture
def pairs(hosts: Hosts) -> list[Pair]:
    return [hosts.connect(kind) for kind in ("v4", "v6", "mapped")]


def test_released_at_the_end(hosts: Hosts, pairs: list[Pair]) -> None:
    with hosts.here.entered():
        with tcpcp.passing([sock for sock, _ in pairs]) as icis:
            assert [ici.local.port for ici in icis] == [peer.getpeername()[1] for _, peer in pairs]
        assert [sock.fileno() for sock, _ in pairs] == [-1] * 3
        made = tcpcp.create_many(icis)
        tcpcp.activate_many(made)
    for sock, (_, peer) in zip(made, pairs, strict=True):
        alive(sock, peer)
    assert_no_reset(hosts)


def test_one_and_a_tag(hosts: Hosts, pairs: list[Pair]) -> None:
    sock, peer = pairs[0]
    with hosts.here.entered(), pytest.raises(Wrong), tcpcp.passing([(7, sock)]) as [ici]:
        assert ici.tag == 7
        raise Wrong
    alive(sock, peer)


def test_a_lone_socket_is_no_iterable(pairs: list[Pair]) -> None:
    with pytest.raises(TypeError), tcpcp.passing(pairs[0][0]):  # type: ignore[arg-type]
        pass
    alive(*pairs[0])


@pytest.mark.parametrize(
    "error", [Wrong, KeyboardInterrupt, SystemExit, asyncio.CancelledError, tcpcp.TcpcpError]
)
def test_resumed_after_an_exception(hosts: Hosts, pairs: list[Pair], error: type[BaseException]) -> None:
    with hosts.here.entered():
        before = hosts.counters(hosts.here)["TcpOutSegs"]
        with pytest.raises(error) as caught, tcpcp.passing([sock for sock, _ in pairs]):
            raise error
        assert hosts.counters(hosts.here)["TcpOutSegs"] == before
    assert not hasattr(caught.value, "__notes__")
    for pair in pairs:
        alive(*pair)
    assert_no_reset(hosts)


def test_resumed_when_a_generator_is_closed(hosts: Hosts, pairs: list[Pair]) -> None:
    def steps() -> Iterator[tcpcp.Ici]:
        with tcpcp.passing([pairs[0][0]]) as [ici]:
            yield ici

    with hosts.here.entered():
        under_way = steps()
        next(under_way)
        assert tcp_repair.get_repair(pairs[0][0])
        under_way.close()  # type: ignore[attr-defined]
    alive(*pairs[0])


def test_resumed_when_a_task_is_cancelled(hosts: Hosts, pairs: list[Pair]) -> None:
    async def hand_over() -> None:
        with tcpcp.passing([sock for sock, _ in pairs]):
            await asyncio.sleep(60)

    async def cancelled() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(hand_over(), 0.05)

    with hosts.here.entered():
        asyncio.run(cancelled())
    for pair in pairs:
        alive(*pair)


def test_what_the_body_has_dealt_with_itself(hosts: Hosts, pairs: list[Pair]) -> None:
    """One released, one resumed by the body: the rest is resumed all the same, and a note says what was odd."""
    released, resumed, third = (sock for sock, _ in pairs)
    with hosts.here.entered(), pytest.raises(Wrong) as caught, tcpcp.passing([released, resumed, third]):
        tcpcp.release(released)
        tcpcp.resume(resumed)
        raise Wrong
    assert len(caught.value.__notes__) == 1
    alive(*pairs[1])
    alive(*pairs[2])


#: What a body may do with one of its sockets, and what is said of that one at the end.
DEALT: dict[str, tuple[Callable[[socket.socket], object], type[tcpcp.TcpcpError]]] = {
    "resume": (tcpcp.resume, tcpcp.NotGot),
    "release": (tcpcp.release, tcpcp.Unsupported),
    "close": (lambda sock: sock.close(), tcpcp.Unsupported),
}


@pytest.mark.parametrize("how", DEALT)
def test_the_others_stay_isolated_when_the_body_has_dealt_with_one(
    hosts: Hosts, pairs: list[Pair], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "TIMEOUT_S", 2)
    (one, _), (other, peer), _ = pairs
    deal, says = DEALT[how]
    with hosts.here.entered():
        with pytest.raises(tcpcp.TcpcpError) as told, tcpcp.passing([one, other]) as icis:
            deal(one)
            peer.sendall(b"late")
            time.sleep(2.8)
            assert tcp_repair.get_outq(peer) == 4
        assert type(told.value) is says
        assert other.fileno() == -1
        made = tcpcp.create(icis[1])
        tcpcp.activate(made)
    made.settimeout(8)  # the peer tries again by its own timer
    assert made.recv(10) == b"late"


@pytest.mark.parametrize("wrong", (False, True))
def test_expired_when_the_body_has_dealt_with_one(
    hosts: Hosts, pairs: list[Pair], wrong: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, and the other runs; also as a note on an exception of the body's."""
    monkeypatch.setattr(isolation, "TIMEOUT_S", 1)
    monkeypatch.setattr(block.Renewal, "_run", lambda self: self._over.wait())  # as if it was not let run
    (one, _), other, _ = pairs
    with (
        hosts.here.entered(),
        pytest.raises(Wrong if wrong else tcpcp.Expired) as caught,
        tcpcp.passing([one, other[0]]),
    ):
        tcpcp.resume(one)
        time.sleep(2.5)
        if wrong:
            raise Wrong
    told = [str(caught.value), *getattr(caught.value, "__notes__", ())]
    assert any("run out" in text for text in told), told
    for pair in pairs[:2]:
        alive(*pair)


def test_one_cannot_be_released(hosts: Hosts, pairs: list[Pair]) -> None:
    """Its number was closed: an error says so, and all the others are released."""
    socks = [sock for sock, _ in pairs]
    with hosts.here.entered():
        with pytest.raises(tcpcp.TcpcpError), tcpcp.passing(socks) as icis:
            os.close(socks[1].detach())
        assert [sock.fileno() for sock in socks] == [-1] * 3
        made = tcpcp.create_many([icis[0], icis[2]])
        tcpcp.activate_many(made)
    alive(made[0], pairs[0][1])
    alive(made[1], pairs[2][1])
    assert_no_reset(hosts)


def threads(count: int) -> None:
    """Wait until there are so many that renew: the kernel has one a moment longer than who waits for its end."""
    eventually(lambda: len(threads_named("tcpcp renews")) == count, f"threads that renew: {count}")


def test_renewed_while_the_body_runs(
    hosts: Hosts, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than twice the isolation's time: nothing the peer sends arrives meanwhile. Then no thread is left."""
    monkeypatch.setattr(isolation, "TIMEOUT_S", 2)
    sock, peer = pairs[0]
    with hosts.here.entered(), pytest.raises(Wrong), tcpcp.passing([sock]):
        peer.sendall(b"late")
        time.sleep(5)
        assert tcp_repair.get_outq(peer) == 4
        threads(1)
        raise Wrong
    threads(0)
    sock.settimeout(3)
    assert sock.recv(100) == b"late"


def test_expired(hosts: Hosts, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread is not let run for as long: the end of the body says that the ICIs are void, and all run."""
    monkeypatch.setattr(isolation, "TIMEOUT_S", 1)
    monkeypatch.setattr(calls, "renew_many", lambda socks: time.sleep(2.5))
    with hosts.here.entered(), pytest.raises(tcpcp.Expired), tcpcp.passing([sock for sock, _ in pairs]):
        time.sleep(2.5)
    for pair in pairs:
        alive(*pair)
    assert_no_reset(hosts)


def test_a_renewal_that_comes_too_late(
    hosts: Hosts, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the thread meets is raised at the end."""
    monkeypatch.setattr(isolation, "TIMEOUT_S", 1)
    error = tcpcp.Expired("too late")

    came = threading.Event()

    def late(socks: list[socket.socket]) -> None:
        came.set()
        raise error

    monkeypatch.setattr(calls, "renew_many", late)
    with hosts.here.entered(), pytest.raises(tcpcp.Expired) as caught, tcpcp.passing([pairs[0][0]]):
        assert came.wait(5)
    assert caught.value is error
    alive(*pairs[0])


def fate(sock: socket.socket, alarm: Alarm, after_s: float) -> str:
    """What became of *sock* after a block that a handler interrupts after *after_s* seconds, or not at all."""
    try:
        alarm.set(after_s)
        with tcpcp.passing([sock]):
            pass
        alarm.over()
    except KeyboardInterrupt:
        pass
    alarm.over()
    if sock.fileno() == -1:
        return "released"
    return "got" if tcp_repair.get_repair(sock) else "runs"


def test_a_handler_raises_at_any_moment(hosts: Hosts, interrupting: Alarm) -> None:
    """Where the block begins and ends too: all run or all are released, and nothing is between."""
    chance, fates, longest = Random(1), Counter[str](), 0.01
    with hosts.here.entered():
        tcpcp.prepare()
        for _ in range(400):
            sock, peer = hosts.connect()
            began = time.monotonic()
            what = fate(sock, interrupting, chance.uniform(0.00002, longest))
            longest = 0.9 * longest + 0.1 * 1.3 * (time.monotonic() - began)
            fates[what] += 1
            if what == "runs":
                alive(sock, peer)
                sock.close()
            peer.close()
        threads(0)
    assert fates["got"] == 0 and fates["runs"] > 10 and fates["released"] > 10, fates


class Alarms:
    """SIGALRM again and again, each of which raises, until :meth:`over`."""

    def __init__(self, every_s: float) -> None:
        self._raising = True
        self._before = signal.signal(signal.SIGALRM, self._handle)
        self._every_s = every_s

    def _handle(self, number: int, frame: object) -> None:
        if self._raising:
            raise KeyboardInterrupt

    def start(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.003, self._every_s)

    def over(self) -> None:
        self._raising = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)


def interrupted(socks: list[socket.socket], every_s: float) -> None:
    alarms = Alarms(every_s)
    with contextlib.suppress(KeyboardInterrupt):  # one that comes while the other is handled
        with contextlib.suppress(KeyboardInterrupt), tcpcp.passing(socks):
            alarms.start()
            time.sleep(1)
        alarms._raising = False
    alarms.over()


def test_interrupted_again_and_again(
    hosts: Hosts, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the body, and then while all are resumed: none stays got."""
    # An alarm may come in a finalizer, where Python drops it; to tell that takes long enough for the next.
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: None)
    chance, socks = Random(2), [sock for sock, _ in pairs]
    with hosts.here.entered():
        for _ in range(60):
            interrupted(socks, chance.uniform(0.0003, 0.003))
            gc.collect()
            assert not any(map(tcp_repair.get_repair, socks))
    for pair in pairs:
        alive(*pair)


def test_no_signal_is_given_to_the_thread_that_renews(pairs: list[Pair], hosts: Hosts) -> None:
    """Python would run the handler in the main thread, which holds them off, all the same."""
    with hosts.here.entered(), pytest.raises(Wrong), tcpcp.passing([pairs[0][0]]):
        threads(1)
        [thread] = threads_named("tcpcp renews")
        status = Path(f"/proc/self/task/{thread}/status").read_text().splitlines()
        [blocked] = [int(line.split()[1], 16) for line in status if line.startswith("SigBlk:")]
        assert all(blocked >> one - 1 & 1 for one in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM))
        assert signal.SIGALRM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        raise Wrong


def test_what_never_ended_is_resumed_when_it_is_dropped(hosts: Hosts, pairs: list[Pair]) -> None:
    """A handler that raises before the first step of the end comes to this."""
    with hosts.here.entered():
        block = tcpcp.passing([sock for sock, _ in pairs])
        block.__enter__()
        assert tcp_repair.get_repair(pairs[0][0])
        threads(1)
        del block
        threads(0)
    for pair in pairs:
        alive(*pair)


def abandoned(how: str, sock: socket.socket) -> None:
    """A block that only the garbage collector can end."""

    def steps() -> Iterator[tcpcp.Ici]:
        with tcpcp.passing([sock]) as [ici]:
            yield ici

    around: list[object] = []
    around.append(around)
    if how == "generator":
        under_way = steps()
        next(under_way)
        around.append(under_way)
    else:
        block_ = tcpcp.passing([sock])
        block_.__enter__()
        around.append(block_)


def goes_on_after_a_collection(hosts: Hosts, pairs: list[Pair], how: str) -> bool:
    """The collector runs in the middle of a call of this thread that changes the filter."""
    (lost, _), (sock, _), _ = pairs
    make, collections = flow_rules.flow_sets, list[int]()

    def collecting(name: str, flows: Sequence[isolation.Flow]) -> dict[str, list[bytes]]:
        collections.append(gc.collect())
        return make(name, flows)

    with hosts.here.entered():
        tcpcp.prepare()
        gc.disable()
        abandoned(how, lost)
        flow_rules.flow_sets = collecting
        tcpcp.get(sock)
        tcpcp.resume(sock)
        deadline = time.monotonic() + 3
        while tcp_repair.get_repair(lost) and time.monotonic() < deadline:
            time.sleep(0.002)
        return collections[0] > 0 and not tcp_repair.get_repair(lost) and not tcp_repair.get_repair(sock)


@pytest.mark.parametrize("how", ("generator", "block"))
def test_dropped_in_the_middle_of_another_call(hosts: Hosts, pairs: list[Pair], how: str) -> None:
    """In a child, which is killed if both wait for each other: signals wait while a call is under way."""
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            os._exit(0 if goes_on_after_a_collection(hosts, pairs, how) else 1)
        os._exit(2)
    killer = threading.Timer(10, os.kill, (pid, signal.SIGKILL))
    killer.start()
    how_it_ended = ended(pid)
    killer.cancel()
    assert how_it_ended == 0
    alive(*pairs[0])
    alive(*pairs[1])


#: Its last call comes upon a block that nobody ends; then it ends itself.
DROPS_AND_ENDS = """
import gc, socket, sys, tcpcp
from tcpcp.endpoint import flow_rules
lost, sock = (socket.socket(fileno=int(one)) for one in sys.argv[1:])
tcpcp.prepare()
gc.disable()
block = tcpcp.passing([lost])
block.__enter__()
around = [block]
around.append(around)
del block, around
make = flow_rules.flow_sets
def collecting(*given):
    gc.collect()
    return make(*given)
flow_rules.flow_sets = collecting
sys.setswitchinterval(60)
try:
    tcpcp.get(sock)
finally:
    flow_rules.flow_sets = make
"""


def test_dropped_before_the_program_ends(hosts: Hosts, pairs: list[Pair]) -> None:
    """What is done beside the call is done before that."""
    lost, other = pairs[0][0], pairs[1][0]
    numbers = [one.fileno() for one in (lost, other)]
    with hosts.here.entered():
        command = [sys.executable, "-c", DROPS_AND_ENDS, *map(str, numbers)]
        subprocess.run(command, env=environment(), pass_fds=numbers, check=True, timeout=30)
    assert not tcp_repair.get_repair(lost) and tcp_repair.get_repair(other)
    alive(*pairs[0])
