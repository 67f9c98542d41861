"""Connections to unix sockets of programs that stay: the journal's, and those that are named, are begun anew."""

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
JOURNAL, STREAMS, WRITTEN = "/run/systemd/journal/stdout", "/run/systemd/journal/streams", "/tmp/journal.log"
SERVICE, USED = "/srv/service", "/tmp/service.log"
HEADER = ["the program", "own.service", "28", "0", "1", "0", "1"]

#: Writes what the beginning of each stream says, then its lines, each with who has sent it. As journald it keeps
#: what a stream has said, by its own end of it, and sends nothing.
JOURNALD = f"""
import array, os, socket, struct, threading
def serve(sock):
    sock.shutdown(socket.SHUT_WR); sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    data, said = b"", []
    while True:
        piece, control, _, _ = sock.recvmsg(1000, 100)
        if not piece:
            break
        pid, uid, _ = struct.unpack("3i", control[0][2])
        data += piece
        while b"\\n" in data:
            line, data = data.split(b"\\n", 1)
            if len(said) < 7:
                said.append(line.decode())
                if len(said) == 7:
                    names = "IDENTIFIER UNIT PRIORITY LEVEL_PREFIX "
                    names += " ".join(f"FORWARD_TO_{{one}}" for one in ("SYSLOG", "KMSG", "CONSOLE"))
                    of = os.fstat(sock.fileno())
                    with open(f"{STREAMS}/{{of.st_dev}}:{{of.st_ino}}", "w") as file:
                        file.write("# This is private data. Do not parse\\n")
                        file.write("".join(f"{{a}}={{b}}\\n" for a, b in zip(names.split(), said) if b))
            else:
                log.write(f"{{said}} {{pid}} {{uid}} {{line.decode()}}\\n".encode())
os.makedirs({STREAMS!r}, exist_ok=True)
log = open({WRITTEN!r}, "ab", buffering=0)
listening = socket.socket(socket.AF_UNIX); listening.bind({JOURNAL!r}); listening.listen()
while True:
    threading.Thread(target=serve, args=(listening.accept()[0],)).start()
"""
#: As systemd starts a service: its standard output is a stream, which it and a child of it have.
LOGGING = f"""
import os, socket, sys, time
stream = socket.socket(socket.AF_UNIX); stream.connect({JOURNAL!r})
stream.setsockopt(socket.SOL_SOCKET, 32, 8 << 20); stream.shutdown(socket.SHUT_RD)
stream.sendall({"".join(f"{one}" + chr(10) for one in HEADER).encode()!r})
for number in 1, 2: os.dup2(stream.fileno(), number)
stream.close()
listening = socket.create_server((sys.argv[1], {PORT}))
told, tell = os.pipe(); answered, answer = os.pipe()
if os.fork() == 0:
    while word := os.read(told, 100):
        os.write(2, b"child " + word + b"\\n"); os.write(answer, b"x")
connection, _ = listening.accept()
while word := connection.recv(100):
    print("parent", word.decode(), flush=True); os.write(tell, word); os.read(answered, 1)
    connection.sendall(b"%d" % socket.socket(fileno=os.dup(1)).getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))
"""
#: Answers each line with who has asked, and the line.
ANSWERING = f"""
import os, socket, struct, threading
def serve(sock):
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    while line := sock.recv(100):
        if line != b"silence":
            sock.sendall(f"{{os.uname().nodename}} {{uid}} {{gid}} ".encode() + line)
listening = socket.socket(socket.AF_UNIX); listening.bind({SERVICE!r}); listening.listen()
while True:
    threading.Thread(target=serve, args=(listening.accept()[0],)).start()
"""
#: A client of that.
USING = f"""
import os, socket, sys
listening = socket.create_server((sys.argv[1], {PORT}))

used = socket.socket(socket.AF_UNIX); used.connect({SERVICE!r}); used.settimeout(5)
connection, _ = listening.accept()
while word := connection.recv(100):
    used.sendall(word)
    connection.sendall(b"sent" if word == b"silence" else used.recv(100))
    if word == b"wait": used.sendall(b"more")
"""


@pytest.fixture(autouse=True)
def _nothing_left(lab: Lab) -> Iterator[None]:
    yield
    for name in MOVERS:
        lab.hosts[name].exec(["rm", "-rf", "/run/systemd", WRITTEN, SERVICE])


def listen(host: Host, code: str, path: str) -> None:
    host.exec(["mkdir", "-p", "/srv"])
    spawn(host, [sys.executable, "-c", code])
    eventually(lambda: host.exec(["test", "-S", path], check=False).returncode == 0, "it listens")


class Asked:
    """A server on origin with one client."""

    def __init__(self, lab: Lab, code: str) -> None:
        self.pid = spawn(lab.hosts["origin"], [sys.executable, "-c", code, lab.service.ipv4])
        eventually(lambda: ss(lab.hosts["origin"], "-l", f"sport = {PORT}"), "the server listens")
        self._client = connect(lab.hosts["peer"], lab.service.ipv4, PORT)

    def ask(self, word: str) -> str:
        self._client.sendall(word.encode())
        return self._client.recv(1000).decode()


def written(host: Host, words: str) -> list[str]:
    """The lines of the journal of *host*, in which *words* are in the end."""
    eventually(
        lambda: words in host.exec(["cat", WRITTEN]).stdout, lambda: host.exec(["cat", WRITTEN]).stdout
    )
    return host.exec(["cat", WRITTEN]).stdout.splitlines()


def lines(pid: int, word: str, child: int) -> list[str]:
    return [f"{HEADER} {pid} 0 parent {word}", f"{HEADER} {child} 0 child {word}"]


def test_what_a_service_writes_goes_to_the_journal_of_the_host_where_it_is(lab: Lab) -> None:
    """By one stream of parent and child, with the name, unit and priority that systemd has written."""
    hosts = {name: lab.hosts[name] for name in MOVERS}
    listen(hosts["origin"], JOURNALD, JOURNAL)
    service = Asked(lab, LOGGING)
    room = service.ask("one")
    refused = run_migrate(hosts["origin"], service.pid, "destination")
    assert (refused.status, refused.codes) == (3, {("no-listener", "destination")})
    refused.must_say("destination", JOURNAL, "systemd-journald")
    listen(hosts["destination"], JOURNALD, JOURNAL)
    moved = move(lab, service.pid)
    assert any(JOURNAL in note for note in moved.report["notes"])
    assert service.ask("two") == room
    move(lab, service.pid, start="destination")
    assert service.ask("three") == room
    there = written(hosts["destination"], "child two")
    here = written(hosts["origin"], "child three")
    child = int(here[1].split("]")[1].split()[0])
    assert there == lines(service.pid, "two", child)
    assert here == [*lines(service.pid, "one", child), *lines(service.pid, "three", child)]


def test_a_service_that_is_rolled_back_writes_to_its_old_stream(lab: Lab) -> None:
    """The one that was begun on the destination ends there without a line."""
    for name in MOVERS:
        listen(lab.hosts[name], JOURNALD, JOURNAL)
    service = Asked(lab, LOGGING)
    service.ask("one")
    held = Held(lab.hosts["origin"], "SWITCHED", service.pid, "destination")
    try:
        held.signal("INT")
        ended = held.end()
    finally:
        held.stop()
    assert (ended.status, ended.report["outcome"]) == (4, "ROLLED_BACK")
    service.ask("two")
    assert len(written(lab.hosts["origin"], "child two")) == 4
    assert lab.hosts["destination"].exec(["cat", WRITTEN]).stdout == ""
    move(lab, service.pid)
    service.ask("three")
    assert len(written(lab.hosts["destination"], "child three")) == 2


def test_a_connection_that_the_user_names_is_begun_anew(lab: Lab) -> None:
    for name in MOVERS:
        listen(lab.hosts[name], ANSWERING, SERVICE)
    client = Asked(lab, USING)
    assert client.ask("one") == "origin 0 0 one"
    refused = run_migrate(lab.hosts["origin"], client.pid, "destination")
    assert (refused.status, refused.codes) == (3, {("unix-outside", "origin")})
    refused.must_say("origin", SERVICE, "--external-socket")
    named = ("--external-socket", SERVICE)
    for start, there in (MOVERS, MOVERS[::-1]):
        moved = move(lab, client.pid, *named, start=start)
        assert any(SERVICE in note for note in moved.report["notes"])
        assert client.ask(there) == f"{there} 0 0 {there}"


def test_a_connection_that_is_begun_anew_is_refused_while_something_is_on_its_way(lab: Lab) -> None:
    for name in MOVERS:
        listen(lab.hosts[name], ANSWERING, SERVICE)
    client = Asked(lab, USING)
    assert client.ask("wait").endswith("wait")
    refused = run_migrate(lab.hosts["origin"], "--external-socket", SERVICE, client.pid, "destination")
    assert (refused.status, refused.codes) == (3, {("unix-busy", "origin")})
    assert "more" in client.ask("x")  # with the answer to x behind it, if that has come already
