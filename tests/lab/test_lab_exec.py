"""Running things in a host of a lab: streams, statuses, signals, processes that stay."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness.wait import eventually
from lab_command import command, migrate_lab, read

from migrate.lab import Lab, LabError
from migrate.lab.cli import main

PR_SET_CHILD_SUBREAPER = 36


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["no-such-program"], 127),
        (["/etc/hostname"], 126),
        (["sh", "-c", "kill -TERM $$"], -signal.SIGTERM),
        (["sh", "-c", "kill -KILL $$"], -signal.SIGKILL),
    ],
)
def test_exec_returns_the_status(lab: Lab, words: list[str], status: int) -> None:
    assert lab.hosts["origin"].exec(words, check=False).returncode == status
    assert migrate_lab(lab.name, "exec", "origin", "--", *words).returncode == status


def test_exec_passes_the_streams(lab: Lab) -> None:
    done = migrate_lab(lab.name, "exec", "peer", "--", "sh", "-c", "cat; echo err >&2", input="in\n")
    assert (done.stdout, done.stderr) == ("in\n", "err\n")


def test_exec_passes_signals_on(lab: Lab) -> None:
    script = "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    run = subprocess.Popen(
        command(lab.name, "exec", "origin", "--", "sh", "-c", script), stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "ready\n"
    run.terminate()
    assert run.communicate(timeout=10)[0] == "got it\n"
    assert run.returncode == 9


def test_exec_that_is_killed_takes_the_command_along(lab: Lab) -> None:
    run = lab.hosts["origin"].popen(
        ["sh", "-c", "echo $$; exec sleep 1000"], stdout=subprocess.PIPE, text=True
    )
    pid = int(run.stdout.readline())  # type: ignore[union-attr]
    run.kill()
    run.communicate(timeout=10)
    path = f"/proc/{pid}"
    eventually(
        lambda: bool(lab.hosts["origin"].exec(["test", "-e", path], check=False).returncode), "it is gone"
    )


def test_exec_that_is_killed_leaves_no_zombie_to_a_machine_that_does_not_reap(lab: Lab) -> None:
    """Here the machine's init, which in a container may be anything, is this test."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        run = lab.hosts["origin"].popen(
            ["sh", "-c", "echo $$; exec sleep 1000"], stdout=subprocess.PIPE, text=True
        )
        pid = run.stdout.readline().strip()  # type: ignore[union-attr]
        run.kill()
        run.communicate(timeout=10)
        shown = ["ps", "-o", "pid=", "-p", pid]
        eventually(lambda: not lab.hosts["origin"].exec(shown, check=False).stdout, "it is gone")
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def test_exec_has_a_login_environment(lab: Lab) -> None:
    done = migrate_lab(lab.name, "exec", "peer", "--", "env", env=os.environ | {"SECRET": "1"})
    assert "SECRET" not in done.stdout
    assert "HOME=/root" in done.stdout


def test_spawn_prints_the_pid_the_host_sees(lab: Lab) -> None:
    host = lab.hosts["origin"]
    done = migrate_lab(
        lab.name, "spawn", "origin", "--log", "/tmp/log", "--", "sh", "-c", "echo $$; exec sleep 1000"
    )
    pid = int(done.stdout)
    eventually(lambda: host.exec(["cat", "/tmp/log"]).stdout == f"{pid}\n", "it wrote its PID")
    eventually(lambda: host.exec(["ps", "-o", "comm=", "-p", str(pid)]).stdout == "sleep\n", "it sleeps")
    ids = host.exec(["ps", "-o", "ppid=,sid=,pgid=", "-p", str(pid)]).stdout.split()
    assert ids == ["1", str(pid), str(pid)]
    files = host.exec(
        ["sh", "-c", f"ls /proc/{pid}/fd; readlink /proc/{pid}/fd/* /proc/{pid}/cwd"]
    ).stdout.split()
    assert files == ["0", "1", "2", "/dev/null", "/tmp/log", "/tmp/log", "/"]
    assert read(Path(f"/proc/{host.host_pid(pid)}/comm")) == b"sleep\n"
    host.exec(["kill", str(pid)])
    eventually(lambda: bool(host.exec(["ps", "-p", str(pid)], check=False).returncode), "it is reaped")


def test_spawned_files_are_of_the_hosts_mounts(lab: Lab) -> None:
    """CRIU refuses a descriptor whose mount it does not find."""
    host = lab.hosts["destination"]
    pid = host.spawn(["sleep", "1000"], log="/var/log/sleep.log")
    used = host.exec(["sh", "-c", f"sed -n 's/^mnt_id:.//p' /proc/{pid}/fdinfo/*"]).stdout.split()
    mounts = host.exec(["cut", "-d ", "-f1", f"/proc/{pid}/mountinfo"]).stdout.split()
    assert len(used) == 3
    assert set(used) <= set(mounts)


def test_spawn_that_fails_says_so(lab: Lab) -> None:
    for words, status in ((["no-such-program"], 127), (["/etc/hostname"], 126)):
        done = migrate_lab(lab.name, "spawn", "origin", "--", *words)
        assert (done.returncode, done.stdout) == (status, "")
        assert "cannot execute" in done.stderr
    for log, why in (("/no/dir", "No such file or directory"), ("/tmp/\udcff/", "Is a directory")):
        done = migrate_lab(lab.name, "spawn", "origin", "--log", log, "--", "true")
        shown = log.encode("ascii", "backslashreplace").decode()
        assert (done.returncode, done.stderr) == (
            125,
            f"migrate-lab: cannot write its output to {shown}: {why}\n",
        )
    with pytest.raises(LabError, match="no-such-program"):
        lab.hosts["origin"].spawn(["no-such-program"])


def test_exec_of_what_takes_too_long(lab: Lab) -> None:
    """It is killed, and what it had written is told."""
    host = lab.hosts["origin"]
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        host.exec(["sh", "-c", "echo $$; exec sleep 1000"], timeout=3)
    pid = int(caught.value.stdout)
    eventually(lambda: bool(host.exec(["test", "-e", f"/proc/{pid}"], check=False).returncode), "it is gone")


def test_exec_reads_and_writes_much(lab: Lab) -> None:
    """More than a pipe holds, both ways."""
    text = "0123456789abcde\n" * 100_000
    done = lab.hosts["origin"].exec(["sh", "-c", "tee /dev/stderr"], input=text)
    assert (done.stdout, done.stderr) == (text, text)


def test_exec_by_many_threads(lab: Lab) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = [["origin", "destination"][number % 2] for number in range(40)]
        found = list(pool.map(lambda name: lab.hosts[name].exec(["hostname"]).stdout, names))
    assert found == [f"{name}\n" for name in names]


def test_exec_of_one_that_has_forked(lab: Lab) -> None:
    """A child of ours enters hosts by a process of its own, and leaves us ours."""
    host = lab.hosts["origin"]
    host.exec(["true"])
    child = os.fork()
    if child == 0:
        status = 99
        with contextlib.suppress(Exception):
            status = host.exec(["sh", "-c", "exit 3"], check=False).returncode
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert host.exec(["echo", "here"]).stdout == "here\n"


def test_who_ends_leaves_no_command(lab: Lab) -> None:
    """Killed in the middle of exec: what enters hosts for it ends, and the command does."""
    program = f"from migrate.lab import Lab; Lab({lab.name!r}).hosts['origin'].exec(['sleep', '4321'])"
    origin = lab.hosts["origin"]
    sleeps = ["pgrep", "-fx", "sleep 4321"]
    run = subprocess.Popen([sys.executable, "-c", program])
    eventually(lambda: not origin.exec(sleeps, check=False).returncode, "it runs")
    servers = subprocess.run(
        ["pgrep", "-P", str(run.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    run.kill()
    run.wait()
    eventually(lambda: bool(origin.exec(sleeps, check=False).returncode), "it has ended")
    eventually(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in servers), "nobody enters for it")


def test_zombies_are_reaped(lab: Lab) -> None:
    host = lab.hosts["origin"]
    host.exec(["sh", "-c", "for i in 1 2 3; do (true &) ; (sleep 0.05 &) ; done"])
    eventually(lambda: "Z" not in host.exec(["ps", "-eo", "stat="]).stdout, "no zombie is left")


def test_shell(lab: Lab) -> None:
    done = migrate_lab(lab.name, "shell", "gateway", input="hostname; exit 3\n")
    assert (done.stdout, done.returncode) == ("gateway\n", 3)


def test_usage_errors() -> None:
    for words in (["exec", "origin"], ["exec"], ["nonsense"], ["up", "--", "x"], []):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2
