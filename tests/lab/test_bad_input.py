"""Acceptance 4: processes that cannot be moved, and the arguments, each refused with its remedy.

In every test the server must go on serving a connection of the peer, and nothing may be left on either host.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from bad_input_bench import ODD, InputBench, stopped_at
from harness.hosts import in_network
from harness.migrate import Held, ran

TRACER = (
    "import ctypes, signal, sys; ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), 0, 0); signal.pause()"
)
TERMINAL = "import pty, sys; pty.spawn(sys.argv[1:])"


def test_check_of_a_good_process_touches_nothing(bench: InputBench) -> None:
    with bench.server() as server, bench.nothing_left():
        found = bench.migrate("--check", server.pid, "destination")
        assert (found.status, found.report["outcome"], found.report["exit_status"]) == (0, "UNTOUCHED", 0)
        assert found.report["frozen_ms"] == 0
        assert len(found.said) == 1 and "--max-gap" in found.said[0]
        server.serves()


def test_check_of_a_bad_process(bench: InputBench) -> None:
    """With --json there is one object a line, the report last, and nothing else anywhere."""
    with bench.server(address=bench.origin.ipv4) as server:
        found = bench.refused(server, "--check")
    assert found.codes == {("address-of-host", "origin")}
    assert [event["event"] for event in found.events[:2]] == ["phase", "phase"]
    assert set(found.report["reasons"][0]) == {"code", "role", "text", "remedy", "pids"}
    assert found.stderr == ""


def test_all_reasons_at_once(bench: InputBench) -> None:
    """And the same as text for people, not as JSON."""
    bench.write(bench.origin, "/srv/only/here", "here")
    words = ("cwd=/srv/only", "read=/srv/only/here", "deaf=10.77.1.1:6901", "unix=@all-at-once")
    with (
        bench.odd(bench.origin, "127.0.0.1:6902", "unixserver=@all-at-once"),
        bench.server(*words) as server,
        bench.odd(bench.destination, f"0.0.0.0:{server.port}"),
        bench.connect("10.77.1.1", 6901) as connection,
    ):
        connection.sendall(b"ab")
        connection.send(b"!", socket.MSG_OOB)
        found = bench.refused(server)
        assert found.codes == {
            ("no-working-directory", "destination"),
            ("no-file", "destination"),
            ("socket", "origin"),
            ("unix-outside", "origin"),
            ("address-of-host", "origin"),
            ("port-taken", "destination"),
        }
        done = bench.origin.exec(["migrate", str(server.pid), "root@10.77.1.2"], check=False)
        assert done.returncode == 3
        head, *lines = done.stdout.splitlines()
        assert head == f"UNTOUCHED: runs on origin as PID {server.pid}"
        assert f"{len(found.said)} reasons not to begin:" in lines
        for one in found.report["reasons"]:
            assert any(one["text"] in line for line in lines)
            assert any(f"-> {one['remedy']}" in line for line in lines)
        assert any(line.startswith("  destination root@10.77.1.2  ") for line in lines)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "PID and HOST are needed"),
        (("/bin/sh", "destination"), "PID is a number, the name of a program"),
        (("1", "destination", "--address", "nonsense"), "--address is an IPv4 or IPv6 address"),
        (("1", "destination", "--switch", "carrier-pigeon"), "--switch is one of"),
        (("1", "-oProxyCommand=touch /tmp/x"), "-oProxyCommand"),
    ],
)
def test_usage(bench: InputBench, words: tuple[str, ...], text: str) -> None:
    with bench.nothing_left():
        done = bench.origin.exec(["migrate", *words], check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert text in done.stderr
    assert "migrate --help" in done.stderr


def test_no_such_process(bench: InputBench) -> None:
    with bench.nothing_left():
        found = bench.migrate(4_000_000, "destination")
    assert (found.status, found.codes) == (3, {("no-such-process", "origin")})
    found.must_say("origin", "no process 4000000", "pgrep")
    assert "runs" not in found.report["where"]


def test_not_root(bench: InputBench) -> None:
    with bench.server() as server:
        found = bench.refused(
            server, wrap=("setpriv", "--reuid", "65534", "--clear-groups", "--inh-caps", "-all")
        )
        found.must_say("origin", "needs root", "sudo")


def test_root_without_its_privileges(bench: InputBench) -> None:
    with bench.server() as server:
        found = bench.refused(
            server, wrap=("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
        )
        found.must_say("origin", "CAP_NET_ADMIN")


def test_init(bench: InputBench) -> None:
    with bench.server() as server, bench.nothing_left():
        found = bench.migrate(1, "destination")
        assert found.status == 3
        found.must_say("origin", "PID 1 is the init process", "PID of the service")
        server.serves()


def test_own_ancestor(bench: InputBench) -> None:
    with bench.nothing_left():
        done = bench.origin.exec(["sh", "-c", "migrate --json $$ destination; exit $?"], check=False)
    found = ran(done.returncode, done.stdout, done.stderr)
    assert found.status == 3
    found.must_say("origin", "migrate itself runs inside process", "not a parent of your shell")


def test_kernel_thread(bench: InputBench, tmp_path: Path) -> None:
    """Of the machine itself, since a lab's host has a PID namespace and sees none."""
    thread = Path("/proc/2/comm")
    if not thread.exists() or thread.read_text() != "kthreadd\n":
        pytest.skip("this machine sees no kernel threads: it is in a PID namespace itself")
    shutil.copytree(bench.origin.root / "root/.ssh", tmp_path / ".ssh")
    command = [Path(sys.executable).parent / "migrate", "--json", "2", bench.destination.ipv4]
    environment = {**os.environ, "HOME": str(tmp_path)}
    with bench.nothing_left():
        done = in_network(
            bench.origin, lambda: subprocess.run(command, capture_output=True, text=True, env=environment)
        )
    found = ran(done.returncode, done.stdout, done.stderr)
    assert (found.status, found.codes) == (3, {("kernel-thread", "origin")})
    found.must_say("origin", "kthreadd (PID 2) is a thread of the kernel", "PID of a program")


def test_terminal(bench: InputBench) -> None:
    """--shell-job does not help: the terminal would have to move."""
    with bench.server(wrap=(sys.executable, "-c", TERMINAL)) as server:
        for words in ((), ("--shell-job",)):
            found = bench.refused(server, *words)
            found.must_say("origin", "descriptors 0, 1, 2 of", "is the terminal /dev/pts/", "setsid PROGRAM")


def test_job_of_a_shell(bench: InputBench) -> None:
    """Refused, but it moves if the user says that session and parent may stay: no descriptor is on a terminal."""
    with bench.server(wrap=("sh", "-c", '"$@" & wait', "sh")) as server:
        found = bench.refused(server)
        found.must_say("origin", "belongs to session", "--shell-job")
        found.must_say("origin", "the parent of", "--leave-supervisor")
        bench.moved(server, "--shell-job", "--leave-supervisor")


def test_namespaces(bench: InputBench) -> None:
    with bench.server(wrap=("unshare", "-m", "-C", "-p", "-f")) as server:
        found = bench.refused(server)
    assert found.codes == {(code, "origin") for code in ("namespace", "shell-job")}
    for kind in ("mnt", "cgroup", "pid"):
        found.must_say("origin", f"runs in another {kind} namespace", "nsenter")


def test_network_namespace(bench: InputBench) -> None:
    """It has no connection that the peer could use; it must go on running."""
    command = ("unshare", "-n", sys.executable, str(ODD), "127.0.0.1:6910")
    with bench.program(bench.origin, *command) as pid:
        bench.wait_for_program(bench.origin, pid, "odd.py")
        with bench.nothing_left():
            found = bench.migrate(pid, "destination")
        assert (found.status, found.codes) == (3, {("namespace", "origin")})
        found.must_say("origin", "another net namespace", "nsenter")


def test_traced(bench: InputBench) -> None:
    with (
        bench.server() as server,
        bench.program(bench.origin, sys.executable, "-c", TRACER, str(server.pid)) as tracer,
    ):
        bench.wait_for_tracer(server, tracer)
        bench.refused(server).must_say("origin", f"traced by process {tracer}", "End the debugger")


def test_unix_connection(bench: InputBench) -> None:
    """Nobody has accepted it: the other end has no descriptor of its own."""
    with (
        bench.odd(bench.origin, "127.0.0.1:6920", "unixserver=@outside"),
        bench.server("unix=@outside") as server,
    ):
        found = bench.refused(server)
        assert found.codes == {("unix-outside", "origin")}
        found.must_say("origin", "@outside", "name the parent")


def test_accept_queue_that_is_never_emptied(bench: InputBench) -> None:
    with bench.server("stuck=10.77.1.100:6930") as server, bench.connect(bench.service, 6930) as waiting:
        found = bench.refused(server, "--max-gap", 2, "--timeout", 300, status=4)
        found.must_say("origin", "1 connection waits at 10.77.1.100:6930", "--max-gap")
        # It has not been reset, and nothing holds new ones off any more.
        waiting.setblocking(False)
        with pytest.raises(BlockingIOError):
            waiting.recv(1)
        bench.connect(bench.service, server.port).close()


def test_twice_at_once(bench: InputBench) -> None:
    with bench.server() as server, bench.nothing_left():
        with stopped_at(bench, "FROZEN", server) as first:
            second = bench.migrate(server.pid, "destination")
            assert second.status == 3
            second.must_say("origin", "another migrate is moving this process", "Wait until it has ended")
            first.terminate()
            found = first.end()
        assert (found.status, found.report["outcome"]) == (4, "ROLLED_BACK")
        assert "stopped by SIGTERM" in found.said[0]
        server.serves()


def test_a_tree_and_its_part_at_once(bench: InputBench) -> None:
    """Whoever comes second is refused before anything is begun, and hears of the other one."""
    with bench.server(wrap=("setsid", "sh", "-c", '"$@" & wait', "sh")) as server, bench.nothing_left():
        parent = int(bench.origin.exec(["ps", "-o", "ppid=", "-p", str(server.pid)]).stdout)
        words = ("--shell-job", "--leave-supervisor")
        for first, second, said in (
            (
                parent,
                server.pid,
                f"another migrate is moving process {parent}, of whose tree this one is a part",
            ),
            (server.pid, parent, "another migrate is moving a process of this tree"),
        ):
            held = Held(bench.origin, "CHECKED", *words, first, "destination")
            try:
                found = bench.migrate(*words, second, "destination")
                assert (found.status, found.report["outcome"]) == (3, "UNTOUCHED")
                found.must_say("origin", said, "Wait until it has ended")
                assert f"of process {first} to destination" in found.said[0]
                held.terminate()
                assert held.end().report["outcome"] in {"UNTOUCHED", "ROLLED_BACK"}
            finally:
                held.stop()
            server.serves()
