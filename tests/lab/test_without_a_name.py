"""What a process uses that no path leads to any more, and whom it sends to by a name, is there after the move."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable

import pytest
from harness.hosts import connect, spawn, ss
from harness.migrate import move, run_migrate
from harness.wait import eventually

from migrate.lab import Host, Lab

PORT = 7600
RECEIVED = "/tmp/received.log"

pytestmark = pytest.mark.usefixtures("clean")

#: Answers each request with what LOOK, an expression, gives.
SERVER = """
listening = socket.create_server((sys.argv[1], {port}))
connection, _ = listening.accept()
while connection.recv(100):
    connection.sendall(repr(({look})).encode())
"""
#: As after an upgrade and a clean-up: its directory is gone, a file that it has open and a library.
DELETED = """
import hashlib, mmap, os, random, socket, sys
os.makedirs("/srv/releases/42"); os.chdir("/srv/releases/42")
with open("lib", "w+b") as lib:
    lib.write(random.Random(1).randbytes(2 << 20)); lib.flush()
    library = mmap.mmap(lib.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
temporary = open("temporary", "w+b", buffering=0); temporary.write(b"x" * (3 << 20))
folder = os.open(".", os.O_RDONLY)
for name in "lib", "temporary": os.unlink(name)
os.rmdir("/srv/releases/42")
"""
LOOK_DELETED = (
    "hashlib.sha256(library).hexdigest(), os.fstat(temporary.fileno()).st_size, os.fstat(folder).st_nlink,"
    ' os.readlink("/proc/self/cwd")'
)
#: More than CRIU carries by itself, as a spool or a sort has it.
SPOOL = """
import hashlib, os, random, socket, sys
spool = open("/srv/spool", "w+b", buffering=0); spool.write(random.Random(2).randbytes(70 << 20))
os.unlink("/srv/spool")
def read():
    spool.seek(0); found = hashlib.sha256(spool.read()).hexdigest(); spool.write(b"more")
    return found, os.fstat(spool.fileno()).st_size
"""
LOOK_SPOOL = "read()"
#: Files, a directory and a socket that live; and a line feed, which the kernel writes otherwise.
NAMED_SO = """
import mmap, os, socket, sys
os.makedirs("/srv/work (deleted)"); os.chdir("/srv/work (deleted)")
with open("a\\n1", "w+b") as mapped:
    mapped.write(b"mapped"); mapped.flush()
    memory = mmap.mmap(mapped.fileno(), 6)
log = open("log (deleted)", "w+b", buffering=0); log.write(b"logged")
named = socket.socket(socket.AF_UNIX); named.bind("/srv/work (deleted)/s (deleted)"); named.listen()
other = socket.socket(socket.AF_UNIX); other.bind("s\\n1"); other.listen()
def reached():
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("s (deleted)"); named.accept()[0].close()
"""
LOOK_NAMED_SO = (
    "memory[:], log.write(b'x'), os.readlink('/proc/self/cwd'), sorted(os.listdir('.')), os.stat(log.name).st_size,"
    " reached()"
)
#: glibc makes its file under another name, links it to this one, and unlinks it.
SEMAPHORE = """
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.sem_open.restype = ctypes.c_void_p
semaphore, value = libc.sem_open(b"/counted", os.O_CREAT, 0o644, 3), ctypes.c_int()
"""
LOOK_SEMAPHORE = """
libc.sem_post(ctypes.c_void_p(semaphore)), libc.sem_getvalue(ctypes.c_void_p(semaphore), ctypes.byref(value)),
value.value, [line.split()[5] for line in open("/proc/self/maps") if "/dev/shm" in line]
"""
LOGGING = """
import os, socket, sys
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); log.connect("/dev/log")
"""
LOOK_LOGGING = 'log.send(f"from {os.uname().nodename} ".encode())'
SYSLOG = f"""
import os, socket
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); log.bind("/dev/log")
with open({RECEIVED!r}, "wb", buffering=0) as file:
    while True:
        if b": migration " not in (data := log.recv(1000)):  # what our own program says there
            file.write(data)
"""


def start(lab: Lab, code: str, look: str) -> tuple[int, Callable[[], str]]:
    """A server on origin; what it says when it is asked."""
    words = [sys.executable, "-c", code + SERVER.format(port=PORT, look=look), lab.service.ipv4]
    pid = spawn(lab.hosts["origin"], words)
    eventually(lambda: ss(lab.hosts["origin"], "-l", f"sport = {PORT}"), "the server listens")
    client = connect(lab.hosts["peer"], lab.service.ipv4, PORT)

    def ask() -> str:
        client.sendall(b"?")
        return client.recv(1000).decode()

    return pid, ask


def test_deleted_files_and_directories_there_and_back(lab: Lab) -> None:
    pid, ask = start(lab, DELETED, LOOK_DELETED)
    before = ask()
    assert "3145728, 0, '/srv/releases/42 (deleted)'" in before
    for there in ("origin", "destination"):
        move(lab, pid, start=there)
        assert ask() == before
    for host in (lab.hosts["origin"], lab.hosts["destination"]):
        assert host.exec(["ls", "-A", "/srv/releases"]).stdout == ""  # the last one is made if it is missing
        host.exec(["rmdir", "/srv/releases"])


def test_a_large_file_that_was_deleted_there_and_back(lab: Lab) -> None:
    """How large it is is said before, since it is sent while the program is frozen."""
    hosts = [lab.hosts[name] for name in ("origin", "destination")]
    before = [host.exec(["ls", "/srv"]).stdout for host in hosts]
    pid, ask = start(lab, SPOOL, LOOK_SPOOL)
    expected = random.Random(2).randbytes(70 << 20)
    for there in ("origin", "destination", ""):
        assert ask() == repr((hashlib.sha256(expected).hexdigest(), len(expected) + 4))
        expected += b"more"
        if there:
            assert any("70.0 MiB" in note for note in move(lab, pid, start=there).report["notes"])
    assert [host.exec(["ls", "/srv"]).stdout for host in hosts] == before


def test_what_lives_with_names_as_of_what_is_gone_there_and_back(lab: Lab) -> None:
    pid, ask = start(lab, NAMED_SO, LOOK_NAMED_SO)
    names = "'/srv/work (deleted)', ['a\\n1', 'log (deleted)', 's\\n1', 's (deleted)']"
    assert ask() == f"(b'mapped', 1, {names}, 7, None)"
    for size, there in ((8, "origin"), (9, "destination")):
        move(lab, pid, "--copy-files", start=there)
        assert ask() == f"(b'mapped', 1, {names}, {size}, None)"
    for host in (lab.hosts["origin"], lab.hosts["destination"]):
        host.exec(["rm", "-r", "/srv/work (deleted)"])


def test_a_semaphore_with_a_name_there_and_back(lab: Lab) -> None:
    """Whoever opens it on the host where it is now counts with the process."""
    pid, ask = start(lab, SEMAPHORE, LOOK_SEMAPHORE)
    hosts = [lab.hosts["origin"], lab.hosts["destination"]]
    assert ask().startswith("(0, 0, 4, ['/dev/shm/sem.")
    assert run_migrate(hosts[0], str(pid), "destination").report["reasons"][0]["code"] == "no-file"
    for value, there in ((5, "origin"), (6, "destination")):
        move(lab, pid, "--copy-files", start=there)
        assert ask() == f"(0, 0, {value}, ['/dev/shm/sem.counted'])"
    for host in hosts:
        assert host.exec(["ls", "/dev/shm"]).stdout == "sem.counted\n"
        host.exec(["rm", "/dev/shm/sem.counted"])


def test_a_log_that_is_written_by_datagrams(lab: Lab) -> None:
    """Each host has its own; where there is none it is refused, before anything is touched."""
    hosts = [lab.hosts["origin"], lab.hosts["destination"]]
    for host in hosts:
        host.exec(["rm", "-f", "/dev/log", RECEIVED])
    syslog(hosts[0])
    try:
        pid, ask = start(lab, LOGGING, LOOK_LOGGING)
        ask()
        refused = run_migrate(hosts[0], str(pid), "destination")
        assert [one["code"] for one in refused.report["reasons"]] == ["no-receiver"]
        assert "/dev/log" in refused.report["reasons"][0]["text"]
        ask()
        syslog(hosts[1])
        moved = move(lab, pid)
        assert any("/dev/log" in note for note in moved.report["notes"])
        ask()
        wanted = ["from origin from origin ", "from destination "]
        eventually(lambda: received(hosts) == wanted, lambda: f"{received(hosts)} was written")
    finally:
        for host in hosts:
            host.exec(["rm", "-f", "/dev/log", RECEIVED])


def received(hosts: list[Host]) -> list[str]:
    """What their logs have written, which they do a moment after they were sent it."""
    return [host.exec(["cat", RECEIVED]).stdout for host in hosts]


def syslog(host: Host) -> None:
    spawn(host, [sys.executable, "-c", SYSLOG])
    eventually(lambda: host.exec(["test", "-e", RECEIVED], check=False).returncode == 0, "it receives")
