"""What is left of a terminal or a shell whose user has gone, while a program that was told to stay runs on."""

from __future__ import annotations

import sys

import pytest
from harness.hosts import MOVERS, connect, spawn, ss
from harness.migrate import Held, move
from harness.wait import eventually

from migrate.lab import Lab

pytestmark = pytest.mark.usefixtures("clean")

PORT = 7600
#: Begun in a terminal by who ends and takes it along, as the end of an ssh session does. Tells what it has of it.
LEFT = f"""
import errno, os, pty, signal, socket, sys, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)
if pty.fork()[0]:
    time.sleep(0.2); os._exit(0)
def tried(call, *words):
    try:
        return call(*words)
    except OSError as error:
        return errno.errorcode[error.errno]
listening = socket.create_server((sys.argv[1], {PORT}))
connection, _ = listening.accept()
while connection.recv(100):
    said = [tried(os.read, 0, 10), tried(os.write, 1, b"x"), tried(os.tcgetpgrp, 0)]
    said.append(tried(os.open, "/dev/tty", os.O_RDWR))
    connection.sendall(repr([*said, os.getsid(0) == os.getpid()]).encode())
"""
SAID = "[b'', 'EIO', 'EIO', 'ENXIO', True]"
#: Answers by a child, in whose group it is, with whether anybody leads their session and group.
JOB = f"""
import os, socket, sys
listening = socket.create_server((sys.argv[1], {PORT}))
if os.fork():
    os.wait()
connection, _ = listening.accept()
while connection.recv(100):
    led = [os.path.exists(f"/proc/{{number}}") for number in (os.getsid(0), os.getpgrp())]
    connection.sendall(repr([led, os.getpgrp() == os.getpgid(os.getppid())]).encode())
"""


class Left:
    """One on origin, with a client."""

    def __init__(self, lab: Lab) -> None:
        origin = lab.hosts["origin"]
        spawn(origin, [sys.executable, "-c", LEFT, lab.service.ipv4])
        shown = eventually(lambda: ss(origin, "-lp", f"sport = {PORT}"), "the server listens")
        self.pid = int(str(shown).split("pid=")[1].split(",")[0])
        self._client = connect(lab.hosts["peer"], lab.service.ipv4, PORT)
        eventually(lambda: self.ask() == SAID, self.ask)

    def ask(self) -> str:
        self._client.sendall(b"?")
        return self._client.recv(1000).decode()


def test_a_terminal_that_is_hung_up_there_and_back(lab: Lab) -> None:
    left = Left(lab)
    for start in MOVERS:
        move(lab, left.pid, start=start)
        assert left.ask() == SAID


def test_a_terminal_that_is_hung_up_and_does_not_move(lab: Lab) -> None:
    left = Left(lab)
    held = Held(lab.hosts["origin"], "RESTORED", left.pid, "destination")
    try:
        held.signal("INT")
        assert held.end().report["outcome"] == "ROLLED_BACK"
    finally:
        held.stop()
    assert left.ask() == SAID


def test_a_job_of_a_shell_that_has_ended_there_and_back(lab: Lab) -> None:
    """Nobody has to say that nothing depends on its session: nobody leads that any more."""
    origin = lab.hosts["origin"]
    shell = f"nohup {sys.executable} -c '{JOB}' {lab.service.ipv4} >/dev/null 2>&1 </dev/null &"
    spawn(origin, ["sh", "-c", shell])
    eventually(lambda: ss(origin, "-l", f"sport = {PORT}"), "the server listens")
    found = origin.exec(["ps", "-eo", "pid=,ppid=,args="]).stdout.splitlines()
    (pid,) = [int(line.split()[0]) for line in found if "os.getpgrp()" in line and line.split()[1] == "1"]
    client = connect(lab.hosts["peer"], lab.service.ipv4, PORT)

    def ask() -> str:
        client.sendall(b"?")
        return client.recv(1000).decode()

    eventually(lambda: ask() == "[[False, False], True]", ask)
    for start in MOVERS:
        move(lab, pid, start=start)
        eventually(lambda: ask() == "[[False, False], True]", ask)
