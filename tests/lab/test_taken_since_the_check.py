"""What somebody on the destination takes after the check stays theirs, and the process goes on where it was."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from bad_input_bench import InputBench, Server, stopped_at
from harness.migrate import Ran
from harness.wait import eventually

#: Binds a UDP socket, which lets others have the port if a second word says so.
DATAGRAMS = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if sys.argv[1:]: s.setsockopt(socket.SOL_SOCKET, getattr(socket, sys.argv[1]), 1)
s.bind(("0.0.0.0", 5353))
while True: time.sleep(1000)
"""


@pytest.mark.parametrize("option", ["SO_REUSEADDR", "SO_REUSEPORT"])
def test_a_udp_port(bench: InputBench, option: str) -> None:
    """CRIU binds with both options, so the other one alone has to permit it."""
    with bench.server() as server, bench.program(bench.origin, sys.executable, "-c", DATAGRAMS) as pid:
        program = Server(pid, "", 0, server.connection, "")
        eventually(lambda: "5353" in bench.origin.exec(["ss", "-ulnH"]).stdout, "UDP")
        with (
            stopped_at(bench, "CHECKED", program) as run,
            bench.program(bench.destination, sys.executable, "-c", DATAGRAMS, option) as other,
        ):
            eventually(lambda: "5353" in bench.destination.exec(["ss", "-ulnH"]).stdout, "UDP")
            run.go()
            found = run.end()
        assert (found.status, found.report["outcome"]) == (4, "ROLLED_BACK"), found
        found.must_say("destination", "UDP port 5353", f"(PID {other})", "since the check", "ss -uanp")


#: Begins a thread when it is told to by a signal.
THREADS = """
import signal, threading, time
signal.signal(signal.SIGUSR1, lambda *_: threading.Thread(target=time.sleep, args=(1000,), daemon=True).start())
while True: signal.pause()
"""


def test_the_number_of_a_thread_that_has_begun_since(bench: InputBench) -> None:
    bench.origin.exec(["sh", "-c", "echo 20000 >/proc/sys/kernel/ns_last_pid"])
    with bench.server() as server, bench.program(bench.origin, sys.executable, "-c", THREADS) as pid:
        program = Server(pid, "", 0, server.connection, "")
        with stopped_at(bench, "CHECKED", program) as run:
            command = f"kill -USR1 {pid}; until [ $(ls /proc/{pid}/task | wc -l) = 2 ]; do :; done"
            bench.origin.exec(["sh", "-c", command])
            (thread,) = bench.names(bench.origin, f"/proc/{pid}/task") - {str(pid)}
            take = (
                f"echo {int(thread) - 1} >/proc/sys/kernel/ns_last_pid; sleep 1000 >/dev/null 2>&1 & echo $!"
            )
            taken = bench.destination.exec(["sh", "-c", take]).stdout.strip()
            assert taken == thread
            run.go()
            found = run.end()
        bench.destination.exec(["kill", "-9", taken])
        assert (found.status, found.report["outcome"]) == (4, "ROLLED_BACK"), found
        found.must_say(
            "destination", f"PID {thread}, which a task or thread", "was taken by sleep", "Try again"
        )


#: Opens the file that is named, in the way that is named.
OPENS = """
import os, signal, sys
os.open(sys.argv[1], getattr(os, sys.argv[2]))
signal.pause()
"""


def test_a_file_that_is_copied(bench: InputBench, copied: str) -> None:
    """The copy is in its place by then, and would be the file of the process and of somebody else."""
    with bench.server(f"write={copied}") as server:
        with (
            stopped_at(bench, "CHECKED", server, "--copy-files") as run,
            bench.program(bench.destination, sys.executable, "-c", OPENS, copied, "O_RDWR") as other,
        ):
            eventually(lambda: has_open(bench, other, copied), "open")
            run.go()
            found = run.end()
        assert (found.status, found.report["outcome"]) == (4, "ROLLED_BACK"), found
        found.must_say("destination", f"{copied} is copied there", f"(PID {other}) has opened it")
        server.serves()
    assert bench.read(bench.destination, copied) == "theirs"
    assert bench.names(bench.destination, "/srv/copied") == {"data"}


def test_a_file_that_somebody_only_reads_there(bench: InputBench, copied: str) -> None:
    """As by the check, which does not look for readers either."""
    with (
        bench.server(f"write={copied}") as server,
        bench.program(bench.destination, sys.executable, "-c", OPENS, copied, "O_RDONLY") as other,
    ):
        eventually(lambda: has_open(bench, other, copied), "open")
        bench.moved(server, "--copy-files")


@pytest.fixture
def copied(bench: InputBench) -> Iterator[str]:
    bench.write(bench.origin, "/srv/copied/data", "mine!")
    bench.write(bench.destination, "/srv/copied/data", "theirs")
    yield "/srv/copied/data"
    for host in (bench.origin, bench.destination):
        host.exec(["rm", "-rf", "/srv/copied"])


def has_open(bench: InputBench, pid: int, path: str) -> bool:
    return path in bench.destination.exec(["sh", "-c", f"ls -l /proc/{pid}/fd"], check=False).stdout


#: Has a unix socket, bound by a name with a symbolic link in it.
LINKED = """
import os, signal, socket
os.makedirs("/srv/bound-one"); os.symlink("bound-one", "/srv/link")
s = socket.socket(socket.AF_UNIX); s.bind("/srv/link/app"); s.listen()
signal.pause()
"""


def test_a_link_on_the_way_to_a_unix_socket(bench: InputBench) -> None:
    """Nothing is made where it leads now; root follows nobody's link."""
    bench.destination.exec(
        ["sh", "-c", "mkdir -p /srv/bound-one /srv/bound-other && ln -s bound-one /srv/link"]
    )
    try:
        with bench.server() as server, bench.program(bench.origin, sys.executable, "-c", LINKED) as pid:
            program = Server(pid, "", 0, server.connection, "")
            eventually(lambda: bench.names(bench.origin, "/srv/bound-one") == {"app"}, "its socket")
            with stopped_at(bench, "CHECKED", program) as run:
                bench.destination.exec(["ln", "-sfn", "bound-other", "/srv/link"])
                run.go()
                found = run.end()
            assert (found.status, found.report["outcome"]) == (4, "ROLLED_BACK"), found
            found.must_say(
                "destination", "/srv/link/app would be made at /srv/bound-other/app", "/srv/bound-one/app"
            )
            for folder in ("/srv/bound-one", "/srv/bound-other"):
                assert bench.names(bench.destination, folder) == set()
    finally:
        for host in (bench.origin, bench.destination):
            host.exec(["rm", "-rf", "/srv/bound-one", "/srv/bound-other", "/srv/link"])


#: Has a unix socket.
HAS = """
import socket, time
s = socket.socket(socket.AF_UNIX); s.bind("/srv/meanwhile"); s.listen()
while True: time.sleep(1000)
"""
TRIES = 10
#: Takes the path as soon as CRIU has begun to build, and has it in its images' directory to log to.
TAKES = """
import ctypes, glob, os, socket, time
while not glob.glob("/dev/shm/migrate-*/restore.log") and not glob.glob("/run/migrate-*/restore.log"): pass
s = socket.socket(socket.AF_UNIX); s.bind("/srv/meanwhile"); s.listen()
open("/run/taken", "w").close()
while True: time.sleep(1000)
"""


def test_a_unix_socket_that_is_made_as_criu_removes_it(bench: InputBench) -> None:
    """CRIU gives no chance to keep it, but the process does not take its place without a word."""
    found = next((one for one in (beaten_by_criu(bench) for _ in range(TRIES)) if one), None)
    assert found, f"the other program was too slow {TRIES} times"
    assert (found.status, found.report["outcome"]) == (4, "ROLLED_BACK"), found
    found.must_say("destination", "somebody else has made /srv/meanwhile", "ss -xap")


def beaten_by_criu(bench: InputBench) -> Ran | None:
    """A move in which the other program has made its socket, and CRIU removed that; None where it was too slow."""
    with bench.server() as server, bench.program(bench.origin, sys.executable, "-c", HAS) as pid:
        program = Server(pid, "", 0, server.connection, "")
        eventually(lambda: "meanwhile" in bench.names(bench.origin, "/srv"), "its socket")
        with (
            stopped_at(bench, "CHECKED", program) as run,
            bench.program(bench.destination, sys.executable, "-c", TAKES),
        ):
            run.go()
            found = run.end()
        taken = "taken" in bench.names(bench.destination, "/run")
        bench.destination.exec(["rm", "-f", "/run/taken", "/srv/meanwhile"])
        bench.origin.exec(["rm", "-f", "/srv/meanwhile"])
        if not taken:
            bench.end_there(found)
        return found if taken else None
