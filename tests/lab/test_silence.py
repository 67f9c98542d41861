"""The peers' silence ends with the freeze: who waits has its answer a moment after the process runs again.

The peers write twice and then read, with Nagle's algorithm: their second write waits until the first is
acknowledged, which the server delays by 40 ms, so some of them wait for that when the gap begins, and others ask in
it. Who is not woken waits for a timer of 12 s. All hosts of a lab have one clock. A busy machine makes some answers
late, none early: the first try that is good enough counts.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from harness.hosts import MOVERS, connect, patient, spawn, ss
from harness.migrate import Held, move
from harness.wait import DEADLINE_S, eventually

from migrate.lab import Host, Lab

PORT = 7700
CLIENTS = 6
#: Between an answer and the next question, of every second client.
PAUSES_S = (0, 0.2)
TRIES = 5
THAWED = "/tmp/thawed"
#: A peer that hears nothing repeats itself after so long.
PATIENCE_S = 12
#: A server that was frozen notices that it has not run for so long.
FROZEN_S = 0.03
#: After a move: less than the 40 ms of a delayed acknowledgement, which nobody has to wait for. (A few ms are
#: usual.) After a rollback, whose gap lasted so long.
MOVED_MS, ROLLED_BACK_MS = 35, 50
LONG_S = 3

SERVER = f"""
import selectors, socket, sys, time
listening, told = socket.create_server((sys.argv[1], {PORT})), open({THAWED!r}, "a", buffering=1)
selector, texts = selectors.DefaultSelector(), {{}}
selector.register(listening, selectors.EVENT_READ)
ran_at = time.time()
while True:
    ready = selector.select(0.001)
    if time.time() - ran_at > {FROZEN_S}: told.write(f"{{time.time()}} {{time.time() - ran_at}}\\n")
    for key, _ in ready:
        if key.fileobj is listening:
            selector.register(connection := listening.accept()[0], selectors.EVENT_READ)
            texts[connection] = b""
        else:
            texts[key.fileobj] += key.fileobj.recv(100)
            if texts[key.fileobj] == b"headbody":
                texts[key.fileobj] = b""
                key.fileobj.sendall(b"answer")
    ran_at = time.time()
"""

pytestmark = pytest.mark.usefixtures("clean")


class Clients:
    """Peers that ask, each again as soon as it has its answer, or a while later: these ask in the gap.

    :ivar asked: when each question began and was answered, seconds since the epoch.
    """

    def __init__(self, lab: Lab) -> None:
        self.asked: list[tuple[float, float]] = []
        self._stop = threading.Event()
        socks = [connect(lab.hosts["peer"], lab.service.ipv4, PORT) for _ in range(CLIENTS)]
        self._threads = [
            threading.Thread(target=self._ask, args=(sock, pause_s), daemon=True)
            for sock, pause_s in zip(socks, itertools.cycle(PAUSES_S), strict=False)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, sock: socket.socket, pause_s: float) -> None:
        with sock:
            while not self._stop.is_set():
                began = time.time()
                sock.sendall(b"head")
                sock.sendall(b"body")
                assert sock.recv(100) == b"answer"
                self.asked.append((began, time.time()))
                time.sleep(pause_s)

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)

    def last_answer_ms(self, host: Host, since: float) -> float:
        """From when the server on *host* ran again after its longest rest until all had their answers."""
        time.sleep(1)
        lines = host.exec(["cat", THAWED]).stdout.split("\n")[:-1]
        rests = [tuple(map(float, line.split())) for line in lines]
        thawed, _ = max((rest for rest in rests if rest[0] > since), key=lambda rest: rest[1])
        waited = [answered for began, answered in self.asked if began < thawed < answered]
        assert waited, "nobody waited"
        return 1000 * (max(waited) - thawed)


@contextlib.contextmanager
def asking(lab: Lab) -> Iterator[tuple[int, Clients]]:
    """A server on origin, and its clients."""
    pid = spawn(lab.hosts["origin"], [sys.executable, "-c", SERVER, lab.service.ipv4])
    eventually(lambda: ss(lab.hosts["origin"], "-l", f"sport = {PORT}"), "the server listens")
    try:
        with patient(lab, lab.service.ipv4, PATIENCE_S):
            clients = Clients(lab)
            time.sleep(0.5)
            yield pid, clients
            clients.end()
    finally:
        for name in MOVERS:
            lab.hosts[name].exec(["rm", "-f", THAWED])


def test_after_a_move(lab: Lab) -> None:
    took_ms = []
    with asking(lab) as (pid, clients):
        for number in range(TRIES):
            began, start = time.time(), MOVERS[number % 2]
            move(lab, pid, "--copy-files", start=start)
            took_ms.append(clients.last_answer_ms(lab.hosts[MOVERS[1 - number % 2]], began))
            if took_ms[-1] < MOVED_MS:
                break
    print("last answer after", [f"{one:.1f} ms" for one in took_ms])
    assert took_ms[-1] < MOVED_MS


@pytest.mark.parametrize("state", ["ISOLATED", "SWITCHED"])
def test_after_a_rollback(lab: Lab, state: str) -> None:
    took_ms = []
    with asking(lab) as (pid, clients):
        for _ in range(TRIES):
            began = time.time()
            roll_back(lab, pid, state)
            took_ms.append(clients.last_answer_ms(lab.hosts["origin"], began))
            if took_ms[-1] < ROLLED_BACK_MS:
                break
    print("last answer after", [f"{one:.1f} ms" for one in took_ms])
    assert took_ms[-1] < ROLLED_BACK_MS


def roll_back(lab: Lab, pid: int, state: str) -> None:
    """Begin to move *pid*, and stop it in *state*."""
    held = Held(lab.hosts["origin"], state, "--copy-files", pid, "destination")
    time.sleep(LONG_S)
    held.signal("INT")
    report = held.end().report
    assert report["outcome"] == "ROLLED_BACK", report
