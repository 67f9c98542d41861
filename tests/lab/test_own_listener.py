"""A tree that connects to its own listener all the time: a proxy and what is behind it, a health check, a worker.

What others on the same host ask for is lost no more than what comes from elsewhere. The judges are the tree, a
worker of which ends at the first connection that fails, and who asks.
"""

from __future__ import annotations

import sys
from subprocess import PIPE

import pytest
from harness.hosts import MOVERS, connect, spawn, ss
from harness.migrate import move, run_migrate
from harness.wait import eventually

from migrate.lab import Host, Lab

PORT = 7240
MOVES = 5
#: Between two connections of a worker.
OFTEN_S = 0.02
#: Before it accepts the next one: it is never done with so many workers.
SLOW_S, MANY = 0.02, 6

#: Processes of it count, by connections to the first one, which tells everybody how far they are.
TREE = f"""
import os, socket, sys, time
listening = socket.create_server((sys.argv[1], {PORT}), backlog=50)
if any(not os.fork() for _ in range(int(sys.argv[2]))):
    listening.close()
    count = 0
    while True:
        # Else from what the route says, which may be an address that does not move.
        source = sys.argv[1], 0
        with socket.create_connection((sys.argv[1], {PORT}), timeout=20, source_address=source) as asking:
            count += 1
            asking.sendall(b"%d" % count)
            assert asking.recv(9) == b"taken"
        time.sleep(float(sys.argv[3]))
count = b"0"
while True:
    time.sleep(float(sys.argv[4]))
    with listening.accept()[0] as asked:
        word = asked.recv(9)
        if word == b"?":
            asked.sendall(count)
        else:
            count = word
            asked.sendall(b"taken")
"""

#: Asks from the address of its host until its input ends, and says how often: ASKING HOST'S SERVICE'S.
ASKING = f"""
import select, socket, sys
count = 0
while not select.select([sys.stdin], [], [], 0.001)[0]:
    with socket.create_connection((sys.argv[2], {PORT}), timeout=20, source_address=(sys.argv[1], 0)) as asking:
        asking.sendall(b"?")
        assert asking.recv(9)
    count += 1
print(count)
"""

pytestmark = pytest.mark.usefixtures("clean")


def start(lab: Lab, address: str, *, workers: int = 1, pause_s: float = OFTEN_S, slow_s: float = 0) -> int:
    """The tree, which works."""
    origin = lab.hosts["origin"]
    pid = spawn(origin, [sys.executable, "-c", TREE, address, *map(str, (workers, pause_s, slow_s))])
    eventually(lambda: ss(origin, "-l", f"sport = {PORT}"), "it listens")
    if workers:
        assert_it_counts(origin, address)
    return pid


def counted(host: Host, address: str) -> int:
    with connect(host, address, PORT) as asking:
        asking.sendall(b"?")
        return int(asking.recv(9))


def assert_it_counts(host: Host, address: str) -> None:
    before = counted(host, address)
    eventually(lambda: counted(host, address) > before + 2, "the worker's connections succeed")


@pytest.mark.parametrize("what", ("loopback", "service"))
def test_it_moves(lab: Lab, what: str) -> None:
    """Five times of five, each connection of its own succeeds."""
    address = "127.0.0.1" if what == "loopback" else lab.service.ipv4
    options = ("--no-address",) if what == "loopback" else ("--address", address)
    pid = start(lab, address)
    for number in range(MOVES):
        here, there = MOVERS[number % 2], MOVERS[1 - number % 2]
        before = counted(lab.hosts[here], address)
        moved = run_migrate(lab.hosts[here], *options, pid, there)
        assert moved.report["outcome"] == "MOVED", (number, moved.report["error"], moved.report["reasons"])
        pid = moved.report["destination_pid"]
        assert counted(lab.hosts[there], address) >= before
        assert_it_counts(lab.hosts[there], address)


def test_one_that_never_waits_stays(lab: Lab) -> None:
    """Its own connections keep the queue full: that is said, in time, and no connection is lost."""
    pid = start(lab, "127.0.0.1", workers=MANY, pause_s=0, slow_s=SLOW_S)
    stayed = run_migrate(lab.hosts["origin"], "--no-address", pid, "destination")
    assert stayed.report["outcome"] == "ROLLED_BACK", str(stayed.report)[:3000]
    assert "connects to its own listener at 127.0.0.1:7240" in stayed.report["error"]["message"], (
        stayed.report
    )
    assert "pause" in stayed.report["error"]["hint"]
    assert_it_counts(lab.hosts["origin"], "127.0.0.1")
    assert len(ss(lab.hosts["origin"], "-l", f"sport = {PORT}")) == 1


def test_who_asks_from_the_same_host_gets_an_answer(lab: Lab) -> None:
    """As often as it can, also while the tree is frozen: there or here, none of its connections fails."""
    pid, origin = start(lab, lab.service.ipv4, workers=0), lab.hosts["origin"]
    words = [sys.executable, "-c", ASKING, origin.ipv4, lab.service.ipv4]
    with origin.popen(words, stdin=PIPE, stdout=PIPE, text=True) as asking:
        move(lab, pid, "--address", lab.service.ipv4)
        told, _ = asking.communicate("")
    assert asking.returncode == 0
    assert int(told) > 100
