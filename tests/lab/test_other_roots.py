"""A program that has changed its root directory (chroot), as HAProxy does after it has opened its files."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from harness.hosts import MOVERS, connect, spawn, ss
from harness.migrate import Held, move, run_migrate
from harness.wait import eventually

from migrate.lab import Host, Lab

pytestmark = pytest.mark.usefixtures("clean")

PORT = 7600
JAIL, LOG = "/srv/jail", "/srv/outside.log"
#: Has a log and a socket (renamed as HAProxy's) outside of its root, and both inside as well, by names that begin
#: there. Each request is logged, and answered with what is seen of the root.
JAILED = f"""
import os, socket, sys
log = open({LOG!r}, "ab", buffering=0)
before = socket.socket(socket.AF_UNIX); before.bind("/srv/s.tmp"); before.listen()
os.rename("/srv/s.tmp", "/srv/s")
listening = socket.create_server((sys.argv[1], {PORT}))
os.chroot({JAIL!r}); os.chdir("/")
inside = open("/inside.log", "ab", buffering=0)
after = socket.socket(socket.AF_UNIX); after.bind("/in"); after.listen()
connection, _ = listening.accept()
while word := connection.recv(100):
    log.write(word); inside.write(word)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("/in"); after.accept()[0].close()
    connection.sendall(f"{{sorted(os.listdir('/'))}} {{os.getcwd()}}".encode())
"""
BOUND = [f"{JAIL}/in", "/srv/s"]
SEEN = "['in', 'inside.log'] /"


@pytest.fixture(autouse=True)
def _nothing_left(lab: Lab) -> Iterator[None]:
    yield
    for name in MOVERS:
        lab.hosts[name].exec(["rm", "-rf", JAIL, LOG, "/srv/s"])


class Jailed:
    """One on origin, with a client."""

    def __init__(self, lab: Lab) -> None:
        origin = lab.hosts["origin"]
        for name in MOVERS:
            lab.hosts[name].exec(["mkdir", "-p", JAIL])
        self.pid = spawn(origin, [sys.executable, "-c", JAILED, lab.service.ipv4])
        eventually(lambda: ss(origin, "-l", f"sport = {PORT}"), "the server listens")
        self._client = connect(lab.hosts["peer"], lab.service.ipv4, PORT)

    def ask(self, word: str) -> str:
        self._client.sendall(word.encode())
        return self._client.recv(1000).decode()


def logs(host: Host) -> list[str]:
    return [host.exec(["cat", path]).stdout for path in (LOG, f"{JAIL}/inside.log")]


def bound(host: Host) -> list[str]:
    """The unix sockets of the program that have files there, by these."""
    return sorted(host.exec(["find", "/srv", "-type", "s"]).stdout.split())


def test_a_program_with_another_root_directory_there_and_back(lab: Lab) -> None:
    origin, destination = (lab.hosts[name] for name in MOVERS)
    jailed = Jailed(lab)
    assert jailed.ask("one ") == SEEN
    move(lab, jailed.pid, "--copy-files")
    assert jailed.ask("two ") == SEEN
    assert (logs(origin), logs(destination)) == (["one "] * 2, ["one two "] * 2)
    assert bound(destination) == BOUND
    assert destination.exec(["readlink", f"/proc/{jailed.pid}/root"]).stdout.strip() == JAIL
    move(lab, jailed.pid, "--copy-files", start="destination")
    assert jailed.ask("three") == SEEN
    assert logs(origin) == ["one two three"] * 2
    assert bound(origin) == BOUND


def test_a_program_with_another_root_directory_that_does_not_move(lab: Lab) -> None:
    """Its root has to be there; what is rolled back goes on as it was, and leaves none of its sockets there."""
    origin, destination = (lab.hosts[name] for name in MOVERS)
    jailed = Jailed(lab)
    assert jailed.ask("one ") == SEEN
    destination.exec(["rmdir", JAIL])
    refused = run_migrate(origin, "--copy-files", jailed.pid, "destination")
    assert (refused.status, refused.codes) == (3, {("no-directory", "destination")})
    destination.exec(["mkdir", JAIL])
    held = Held(origin, "RESTORED", "--copy-files", jailed.pid, "destination")
    try:
        held.signal("INT")
        assert held.end().report["outcome"] == "ROLLED_BACK"
    finally:
        held.stop()
    assert jailed.ask("two") == SEEN
    assert logs(origin) == ["one two"] * 2
    assert bound(origin) == BOUND
    assert bound(destination) == []
