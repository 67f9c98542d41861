"""Threads, forked children and killed programs pass connections at once; all others never notice.

`make facts-all` runs this with ten times as many rounds: TCPCP_STRESS=10.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator

import pytest
from actor import actor
from netns import Hosts, eventually
from traces import rules

import tcpcp
from tcpcp.endpoint import isolation
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import State

ROUNDS = int(os.environ.get("TCPCP_STRESS", "1"))
_THREADS = 8
pytestmark = pytest.mark.timeout(120 * ROUNDS)


def total_retransmits(sock: socket.socket) -> int:
    """tcpi_total_retrans."""
    return int.from_bytes(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[100:], sys.byteorder)


class Bystander:
    """A connection that nobody passes, in constant use."""

    def __init__(self, hosts: Hosts) -> None:
        self._ends = hosts.connect()
        self.count, self.error = 0, ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        here, there = self._ends
        there.settimeout(5)
        here.settimeout(5)
        try:
            while not self._stop.is_set():
                there.sendall(b"?")
                here.sendall(here.recv(1))
                assert there.recv(1) == b"?"
                self.count += 1
                time.sleep(0.002)
        except BaseException as exc:
            self.error = repr(exc)

    def sent_again(self) -> int:
        """Segments that either side sent a second time, for one was dropped or late."""
        return sum(total_retransmits(one) for one in self._ends)

    def end(self) -> None:
        self._stop.set()
        self._thread.join(10)
        assert self.error == ""
        assert self.count > 50


@pytest.fixture
def bystander(hosts: Hosts) -> Iterator[Bystander]:
    one = Bystander(hosts)
    yield one
    one.end()
    assert one.sent_again() == 0


def no_reset_by_us(hosts: Hosts) -> None:
    assert hosts.counters(hosts.here)["TcpOutRsts"] == 0
    assert hosts.counters(hosts.there)["TcpEstabResets"] == 0


# --- threads --------------------------------------------------------------------------------------------


def pass_often(hosts: Hosts, seed: int, times: int, errors: list[str]) -> None:
    """One connection, got and resumed, or released and created, again and again; each time it answers."""
    try:
        chance = random.Random(seed)
        sock, peer = hosts.connect(chance.choice(("v4", "v6", "mapped")))
        peer.settimeout(10)
        with hosts.here.entered():
            for number in range(times):
                ici = tcpcp.get(sock)
                if chance.random() < 0.3:
                    tcpcp.resume(sock)
                else:
                    tcpcp.release(sock)
                    sock = tcpcp.create(ici)
                    tcpcp.activate(sock)
                content = b"%d" % number
                peer.sendall(content)
                assert sock.recv(100) == content
                sock.sendall(content)
                assert peer.recv(100) == content
    except BaseException as exc:
        errors.append(f"seed {seed}: {exc!r}")


def let_go_at_once(hosts: Hosts, sock: socket.socket) -> list[str]:
    """Which calls say that they have let *sock* go, of three threads."""
    together, done = threading.Barrier(3), list[str]()

    def let_go(call: Callable[[socket.socket], None]) -> None:
        with hosts.here.entered():
            together.wait()
            with contextlib.suppress(tcpcp.NotGot, tcpcp.Unsupported):  # closed, it is no socket any more
                call(sock)
                done.append(call.__name__)

    threads = [
        threading.Thread(target=let_go, args=(call,))
        for call in (tcpcp.resume, tcpcp.release, tcpcp.activate)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join(10)
    return done


def test_only_one_thread_lets_it_go(hosts: Hosts) -> None:
    """Else one would take the connection for its own and the other for the destination's."""
    for _ in range(30):
        sock, peer = hosts.connect()
        with hosts.here.entered():
            tcpcp.get(sock)
        [done] = let_go_at_once(hosts, sock)
        assert (sock.fileno() == -1) == (done == "release")
        if done != "release":
            sock.sendall(b"alive")
            assert peer.recv(5) == b"alive"
        sock.close()
        peer.close()


def test_threads(hosts: Hosts, bystander: Bystander) -> None:
    errors: list[str] = []
    threads = [
        threading.Thread(target=pass_often, args=(hosts, seed, 100 * ROUNDS, errors))
        for seed in range(_THREADS)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.1)
        assert rules(hosts.here).tables <= 1
    assert errors == []
    assert rules(hosts.here).holding == 0
    no_reset_by_us(hosts)


# --- a prefork server -----------------------------------------------------------------------------------


class Worker:
    """In a child: answers lines of its connections, and passes each to another child after every answer."""

    def __init__(self, number: int, inboxes: list[tuple[socket.socket, socket.socket]]) -> None:
        self._chance = random.Random(number)
        self._inbox = inboxes[number][0]
        self._others = [outbox for _, outbox in inboxes]
        self._mine: list[socket.socket] = []

    def run(self, mine: list[socket.socket]) -> None:
        self._mine = mine
        while True:
            for one in select.select([self._inbox, *self._mine], [], [])[0]:
                if one is self._inbox:
                    self._take()
                else:
                    self._answer(one)

    def _take(self) -> None:
        image = self._inbox.recv(1 << 16)
        made = tcpcp.create(tcpcp.loads(image))
        tcpcp.activate(made)
        self._mine.append(made)

    def _answer(self, one: socket.socket) -> None:
        line = one.recv(100)
        if not line:
            self._mine.remove(one)
            one.close()
            return
        one.sendall(line)
        self._mine.remove(one)
        image = tcpcp.dumps(tcpcp.get(one))
        tcpcp.release(one)
        self._chance.choice(self._others).send(image)


def forked(work: Callable[[], object], keep_s: int = 60 * ROUNDS) -> int:
    """A child that does *work*, and ends with 1 if that fails; broken off, a test leaves it for *keep_s*."""
    pid = os.fork()
    if pid:
        return pid
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(keep_s)
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def kill(pids: list[int]) -> list[int]:
    """End them; their exit statuses."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [os.waitpid(pid, 0)[1] for pid in pids]


def talk(peer: socket.socket, number: int, errors: list[str]) -> None:
    try:
        peer.settimeout(10)
        for count in range(40 * ROUNDS):
            line = b"%d of %d" % (count, number)
            peer.sendall(line)
            assert peer.recv(100) == line
    except BaseException as exc:
        errors.append(f"connection {number}: {exc!r}")


def test_prefork(hosts: Hosts, bystander: Bystander) -> None:
    """Four children, made after prepare(), pass twelve connections among each other, after each answer."""
    pairs = [hosts.connect(("v4", "v6")[i % 2]) for i in range(12)]
    inboxes = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(4)]
    errors: list[str] = []
    with hosts.here.entered():
        tcpcp.prepare()

        def work(number: int) -> None:
            for i, (sock, _) in enumerate(pairs):
                if i % 4 != number:
                    sock.close()
            Worker(number, inboxes).run([sock for i, (sock, _) in enumerate(pairs) if i % 4 == number])

        pids = [forked(lambda number=number: work(number)) for number in range(4)]
    try:
        for sock, _ in pairs:
            sock.close()
        threads = [threading.Thread(target=talk, args=(peer, i, errors)) for i, (_, peer) in enumerate(pairs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        no_reset_by_us(hosts)
        assert rules(hosts.here).tables <= 5
    finally:
        statuses = kill(pids)
    assert {os.WIFSIGNALED(status) for status in statuses} == {True}, "a child failed"


# --- programs that are killed ---------------------------------------------------------------------------


def restless(socks: list[socket.socket], which: int, seed: int) -> None:
    """Passes one of *socks* for ever, to itself; has nothing to do with the others."""
    sock = socks.pop(which)
    for one in socks:
        one.close()
    chance = random.Random(seed)
    while True:
        ici = tcpcp.get(sock)
        if chance.random() < 0.5:
            tcpcp.resume(sock)
            continue
        tcpcp.release(sock)
        sock = tcpcp.create(ici)
        tcpcp.activate(sock)


def is_answered(peer: socket.socket) -> bool:
    """The other host acknowledges what *peer* sent, or says that there is no connection."""
    return tcp_repair.get_state(peer) == State.CLOSE or not tcp_repair.get_outq(peer)


def test_killed_anywhere(hosts: Hosts, bystander: Bystander, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL at random moments: after the timeout, a second here, no connection of theirs is held any more."""
    monkeypatch.setattr(isolation, "TIMEOUT_S", 1)
    seed = int(os.environ.get("TCPCP_SEED", str(random.randrange(1 << 32))))
    print("TCPCP_SEED", seed)
    chance = random.Random(seed)
    for _ in range(ROUNDS):
        pairs = [hosts.connect(chance.choice(("v4", "v6", "mapped"))) for _ in range(12)]
        pids = []
        with hosts.here.entered():
            tcpcp.prepare()
            ours = [sock for sock, _ in pairs]
            for i in range(len(ours)):
                number = chance.randrange(1 << 32)
                pids.append(forked(lambda ours=ours, i=i, number=number: restless(ours, i, number)))
        for sock, _ in pairs:
            sock.close()
        time.sleep(0.05)
        for pid in pids:
            time.sleep(chance.uniform(0, 0.03))
            (status,) = kill([pid])
            assert os.WIFSIGNALED(status), f"it failed before, seed {seed}"
        eventually(lambda: rules(hosts.here).holding == 0, f"expired, seed {seed}", 4)
        for _, peer in pairs:
            with contextlib.suppress(OSError):
                peer.send(b"x")
        for _, peer in pairs:
            eventually(lambda peer=peer: is_answered(peer), f"answered, seed {seed}", 6)
    sock, peer = hosts.connect()
    with actor(hosts.here, sock) as next_one:  # who comes next takes away what they left
        next_one.do("get")
        next_one.do("resume")
        next_one.answers(peer)
        assert rules(hosts.here).tables <= 2
