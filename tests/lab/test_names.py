"""What a tree takes or needs by name on the destination: READY means that it is had there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
from harness.hosts import spawn
from harness.migrate import Held, run_migrate
from harness.wait import eventually

from migrate.lab import Lab
from migrate.lab.lab import Host

pytestmark = pytest.mark.usefixtures("clean")

#: Has a pseudo terminal, a socket on an interface, a watched directory, files that the kernel makes; writes what
#: it sees of them to its log whenever something happens in the directory.
NAMES = """import ctypes, os, socket, sys, threading
libc, stop = ctypes.CDLL(None), threading.Event()
thread = threading.Thread(target=stop.wait, daemon=True)
thread.start()
master, slave = os.openpty()
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"svc0")
watch = libc.inotify_init1(0)
assert libc.inotify_add_watch(watch, b"/run/watched", 0x100) > 0
kept = [open("/proc/meminfo"), open("/proc/self/stat"), open("/sys/class/net/lo/mtu")]
if "thread" in sys.argv:
    kept += [open(f"/proc/self/task/{thread.native_id}/stat"), open("/proc/1/stat")]
while True:
    os.write(master, b"said in it\\n")
    said = os.read(slave, 100).decode().strip(); os.read(master, 100)
    with open("/tmp/seen.names", "a") as log:
        print(os.ttyname(slave), said, sock.getsockopt(socket.SOL_SOCKET, 25, 16).decode(), file=log)
    os.read(watch, 1000)
"""

#: Binds a unix socket to one path and gives it another, as HAProxy does.
RENAMED = """import os, socket, time
server = socket.socket(socket.AF_UNIX)
server.bind("/tmp/admin.sock.new"); os.chmod("/tmp/admin.sock.new", 0o606); server.listen()
os.rename("/tmp/admin.sock.new", "/tmp/admin.sock")
while True:
    client, _ = server.accept()
    client.sendall(b"hello"); client.close()
"""
ASK = "import socket; s = socket.socket(1); s.connect('/tmp/admin.sock'); print(s.recv(9).decode())"


def start(host: Host, *words: str) -> int:
    host.exec(["sh", "-c", "mkdir -p /run/watched && ip link add svc0 type veth peer name svc1"], check=False)
    pid = spawn(host, [sys.executable, "-c", NAMES, *words])
    eventually(lambda: host.exec(["test", "-e", "/tmp/seen.names"], check=False).returncode == 0, "it runs")
    return pid


@pytest.fixture
def hosts(lab: Lab) -> tuple[Host, Host]:
    return lab.hosts["origin"], lab.hosts["destination"]


def test_named_things_that_the_destination_cannot_give(hosts: tuple[Host, Host]) -> None:
    origin, destination = hosts
    login = spawn(destination, [sys.executable, "-c", "import os, time; os.openpty(); time.sleep(1000)"])
    eventually(
        lambda: destination.exec(["ls", "/dev/pts"]).stdout.split() == ["0", "ptmx"],
        "a terminal is used there",
    )
    try:
        pid = start(origin, "thread")
        checked = run_migrate(origin, "--check", str(pid), "destination")
        reasons = {one["code"]: one for one in checked.report["reasons"]}
        assert checked.status == 3
        assert reasons.keys() == {
            "terminal-taken",
            "no-interface",
            "no-watched-file",
            "proc-thread",
            "proc-outside",
        }
        assert (
            f"/dev/pts/0 of the process is in use there by python (PID {login})"
            in reasons["terminal-taken"]["text"]
        )
        assert (
            "svc0" in reasons["no-interface"]["text"] and "/run/watched" in reasons["no-watched-file"]["text"]
        )
        assert all(one["remedy"] for one in reasons.values())
    finally:
        clean_up(hosts)


def test_named_things_that_it_can_give(hosts: tuple[Host, Host]) -> None:
    origin, destination = hosts
    try:
        pid = start(origin)
        destination.exec(["sh", "-c", "ip link add svc0 type veth peer name svc1"])
        assert run_migrate(origin, "--check", "--copy-files", str(pid), "destination").status == 0
        moved = run_migrate(origin, "--copy-files", str(pid), "destination")
        assert (moved.status, moved.report["outcome"]) == (0, "MOVED"), moved.report
        destination.exec(["touch", "/run/watched/new"])
        seen = ["cat", "/tmp/seen.names"]
        eventually(lambda: destination.exec(seen, check=False).stdout.strip(), "it has seen that")
        assert destination.exec(seen).stdout.split("\0")[0].split() == [
            "/dev/pts/0",
            "said",
            "in",
            "it",
            "svc0",
        ]
    finally:
        clean_up(hosts)


def sockets(host: Host) -> list[str]:
    """Where it is; other files of /tmp may go while find looks, which it takes for an error."""
    words = ["find", "/tmp", "-name", "admin.sock*", "-type", "s", "-perm", "606"]
    return host.exec(words, check=False).stdout.split()


def rolled_back_and_moved(
    hosts: tuple[Host, Host], pid: int, paths: list[str], made: Callable[[Host], list[str]], ask: str
) -> None:
    """A migration that is rolled back leaves none of the sockets there, the next one all of them, answering.

    :param paths: of the sockets. :param made: which of them a host has. :param ask: prints what one answers.
    """
    origin, destination = hosts
    held = Held(origin, "RESTORED", pid, "destination")
    assert made(destination) == paths
    held.signal("KILL")
    held.killed()
    eventually(lambda: not made(destination), "it is gone there")
    eventually(lambda: origin.exec([sys.executable, "-c", ask]).stdout == "hello\n", "it answers here")
    eventually(
        lambda: not origin.exec(["ls", "/run/migrate"]).stdout.replace("probe", "").strip(), "all is over"
    )
    moved = run_migrate(origin, str(pid), "destination")
    assert moved.report["outcome"] == "MOVED", moved.report
    assert made(destination) == paths
    assert destination.exec([sys.executable, "-c", ask]).stdout == "hello\n"


def test_a_unix_socket_that_was_renamed(hosts: tuple[Host, Host]) -> None:
    """It is moved under the name that clients know; and a migration that is rolled back leaves none."""
    origin, destination = hosts
    pid = spawn(origin, [sys.executable, "-c", RENAMED])
    eventually(lambda: sockets(origin) == ["/tmp/admin.sock"], "the socket has its name")
    try:
        rolled_back_and_moved(hosts, pid, ["/tmp/admin.sock"], sockets, ASK)
    finally:
        for host in hosts:
            host.exec(["sh", "-c", "rm -f /tmp/admin.sock*"])


#: Binds a unix socket by a name that goes through a symbolic link.
LINKED = """import os, socket, sys
os.makedirs("/run/one"); os.symlink("one", "/run/link")
server = socket.socket(socket.AF_UNIX)
server.bind("/run/link/app.sock"); server.listen()
while True:
    client, _ = server.accept()
    client.sendall(b"hello"); client.close()
"""
ASK_LINKED = ASK.replace("/tmp/admin.sock", "/run/link/app.sock")


@pytest.fixture
def linked(hosts: tuple[Host, Host]) -> Iterator[int]:
    """A process that has done so; the destination has both directories."""
    pid = spawn(hosts[0], [sys.executable, "-c", LINKED])
    eventually(lambda: hosts[0].exec(["test", "-S", "/run/one/app.sock"], check=False).returncode == 0, "it")
    hosts[1].exec(["mkdir", "/run/one", "/run/other"])
    yield pid
    for host in hosts:
        host.exec(["rm", "-rf", "/run/one", "/run/other", "/run/link"])


def made_there(destination: Host) -> list[str]:
    return destination.exec(["find", "/run/one", "/run/other", "-type", "s"]).stdout.split()


def test_a_link_that_is_the_same_there(hosts: tuple[Host, Host], linked: int) -> None:
    """The socket is where it was, and a migration that is rolled back leaves none."""
    origin, destination = hosts
    destination.exec(["ln", "-s", "one", "/run/link"])
    rolled_back_and_moved(hosts, linked, ["/run/one/app.sock"], made_there, ASK_LINKED)


@pytest.mark.parametrize("there", ["ln -s other /run/link", "true", "mkdir /run/link"])
@pytest.mark.parametrize("options", [(), ("--copy-files",)])
def test_a_link_that_is_not_the_same_there(
    hosts: tuple[Host, Host], linked: int, there: str, options: tuple[str, ...]
) -> None:
    origin, destination = hosts
    destination.exec(["sh", "-c", there])
    checked = run_migrate(origin, "--check", *options, str(linked), "destination")
    assert (checked.status, [one["code"] for one in checked.report["reasons"]]) == (
        3,
        ["unix-path-elsewhere"],
    )
    reason = checked.report["reasons"][0]
    assert "/run/link/app.sock" in reason["text"] and "namei -l" in reason["remedy"]


def clean_up(hosts: tuple[Host, Host]) -> None:
    for host in hosts:
        words = "ip link del svc0; rm -rf /run/watched /tmp/seen.names"
        host.exec(["sh", "-c", words], check=False)
