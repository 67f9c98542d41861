"""The two ends of a command in a machine: what it does not read stays where it is, and signals reach it at once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness.wait import eventually

from migrate.lab import cli
from migrate.lab.lab import Lab
from migrate.lab.vm import frames
from migrate.lab.vm.exchange import HASTE_S, PATIENCE_S, Ended, Exchange, Gone
from migrate.lab.vm.given import CHUNK

PROGRAM = [sys.executable, "-I", str(Path(__file__).with_name("without_a_machine.py"))]
EXEC = " ".join(PROGRAM)
LIMIT_S = 60
#: As ``spawn`` ends in the lab of namespaces.
TELLS = "import sys; from migrate.lab import enter; sys.exit(enter.tell_pid(str(7)))"
LINES = "".join(f"line {number}\n" for number in range(3))


def shell(script: str, **options: object) -> str:
    """What a script for bash writes, in which ``$EXEC`` runs a command."""
    done = subprocess.run(
        ["bash", "-c", script],
        env=os.environ | {"EXEC": EXEC},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
        **options,  # type: ignore[call-overload]
    )
    return str(done.stdout)


@pytest.fixture
def ended() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that are ended after the test."""
    runs: list[subprocess.Popen[bytes]] = []
    yield runs
    for run in runs:
        run.kill()
        run.wait()


def started(pattern: str) -> None:
    eventually(lambda: pids(pattern), f"{pattern} runs")


def pids(pattern: str) -> list[str]:
    """Of the commands themselves; who starts them has their words in the middle of its own."""
    return subprocess.run(["pgrep", "-fx", pattern], capture_output=True, text=True).stdout.split()


# --- what the command does not read -----------------------------------------------------------------------

GO_ON = "while read -r line; do echo got $line; $EXEC %s || :; done"


@pytest.mark.parametrize("command", ["true", "sh -c 'exit 3'", "sleep 0.01"])
def test_a_loop_over_a_file_goes_on(tmp_path: Path, command: str) -> None:
    file = tmp_path / "lines"
    file.write_text(LINES)
    assert shell(f"{GO_ON % command} < {file}") == "".join(f"got line {number}\n" for number in range(3))


def test_a_loop_over_a_pipe_goes_on() -> None:
    assert shell(f"printf 'a\\nb\\nc\\n' | ({GO_ON % 'true'})") == "got a\ngot b\ngot c\n"


def test_a_loop_over_a_socket_goes_on() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(LINES.encode())
        ours.shutdown(socket.SHUT_WR)
        assert shell(GO_ON % "true", stdin=theirs).count("got line") == 3


@pytest.mark.parametrize("source", ["< {file}", "< <(cat {file})"])
def test_what_is_read_in_part(tmp_path: Path, source: str) -> None:
    """Two commands and the shell between them read one after the other, as far as each of them wants."""
    file = tmp_path / "bytes"
    data = "".join(f"{number:07}\n" for number in range(50_000))
    file.write_text(data)
    script = "{ $EXEC head -c 100000; $EXEC bash -c 'read -r x; echo $x'; read -r y; echo $y; $EXEC cat; }"
    assert shell(f"{script} {source.format(file=file)}") == data


def test_much_that_is_all_read() -> None:
    data = os.urandom(50 * CHUNK)
    run = subprocess.run(
        [*PROGRAM, "sh", "-c", "tee /dev/stderr"], input=data, capture_output=True, timeout=LIMIT_S
    )
    assert (run.returncode, run.stdout == data, run.stderr == data) == (0, True, True)


def test_an_input_that_is_closed_and_one_without_an_end() -> None:
    assert shell("$EXEC cat < /dev/null; $EXEC cat <&-; yes | $EXEC head -n 1; echo $?") == "y\n0\n"
    assert shell("yes | $EXEC sh -c 'exec <&-; sleep 0.1; echo done'") == "done\n"


# --- signals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_a_command_that_does_not_read(
    ended: list[subprocess.Popen[bytes]], number: signal.Signals
) -> None:
    with Path("/dev/zero").open("rb") as zeros:
        run = subprocess.Popen([*PROGRAM, "sleep", f"83{number}"], stdin=zeros)
    ended.append(run)
    started(f"sleep 83{number}")
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(0.5)  # Until nothing more can be on its way.
    run.send_signal(number)
    assert run.wait(LIMIT_S) == -number
    assert pids(f"sleep 83{number}") == []


def test_a_signal_reaches_a_command_whose_output_nobody_reads(ended: list[subprocess.Popen[bytes]]) -> None:
    """And what it has written and nobody reads is not waited for."""
    run = subprocess.Popen([*PROGRAM, "yes", "no reader"], stdout=subprocess.PIPE)
    ended.append(run)
    started("yes no reader")
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(0.5)
    run.terminate()
    assert run.wait(LIMIT_S) == -signal.SIGTERM


def test_what_a_command_says_to_a_signal_is_told() -> None:
    script = "trap 'seq 100000; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen([*PROGRAM, "bash", "-c", script], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        run.terminate()
        said, _ = run.communicate(timeout=LIMIT_S)
    assert (run.returncode, said.split()[-1]) == (9, "100000")


def test_who_is_killed_takes_a_command_along_that_does_not_read(ended: list[subprocess.Popen[bytes]]) -> None:
    with Path("/dev/zero").open("rb") as zeros:
        run = subprocess.Popen([*PROGRAM, "sleep", "8301"], stdin=zeros)
    ended.append(run)
    started("sleep 8301")
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(0.5)
    run.kill()
    eventually(lambda: not pids("sleep 8301"), "it is gone")


def test_what_is_ignored_is_ignored_by_the_command_too(ended: list[subprocess.Popen[bytes]]) -> None:
    """As nohup has it."""
    run = subprocess.Popen(["sh", "-c", f"trap '' HUP; exec {EXEC} sleep 8302"])
    ended.append(run)
    started("sleep 8302")
    run.send_signal(signal.SIGHUP)
    run.terminate()
    assert run.wait(LIMIT_S) == -signal.SIGTERM


def test_what_goes_on_in_the_background_is_not_waited_for() -> None:
    assert shell("$EXEC sh -c 'yes & sleep 0.1; exit 0' | tail -c 2; echo ${PIPESTATUS[0]}").endswith(
        "y\n0\n"
    )


# --- ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", ["", "2"])
def test_an_output_that_takes_nothing_ends_the_command(tmp_path: Path, stream: str) -> None:
    other = tmp_path / "other"
    script = f"$EXEC sh -c 'while :; do echo for {tmp_path}; echo >&2; done' {{}} {stream}>/dev/full; echo $?"
    assert shell(script.format(f"2>{other}" if not stream else ">/dev/null")) == "125\n"
    eventually(lambda: not pids(f"sh -c .*{tmp_path}.*"), "it has ended")
    if not stream:
        assert other.read_text().strip() == "migrate-lab: standard output: No space left on device"


@pytest.mark.parametrize("spawn", ["$EXEC -s sleep 8304", f"{sys.executable} -c '{TELLS}'"])
@pytest.mark.parametrize("output", ["/dev/full", ">(:)"])
def test_a_pid_that_standard_output_does_not_take_is_not_lost(spawn: str, output: str) -> None:
    """It runs, in a machine or in a host of the other lab, and somebody has to end it."""
    try:
        wait = "sleep 0.3; " if output != "/dev/full" else ""
        told, status = shell(f"({wait}{spawn}) 2>&1 > {output}; echo $?").splitlines()
        why = "Broken pipe" if wait else "No space left on device"
        assert (told.partition(";")[2], status) == (f" standard output: {why}", "125")
        assert told.startswith("migrate-lab: it runs as PID ")
        assert told.split()[5] == "7;" or pids("sleep 8304") == [told.split()[5][:-1]]
    finally:
        subprocess.run(["pkill", "-fx", "sleep 8304"], check=False)


@pytest.mark.parametrize("vm", ["", "--vm"])
def test_nothing_is_spawned_whose_pid_nobody_can_be_told(tmp_path: Path, vm: str) -> None:
    """Refused before the lab is looked at."""
    words = f"{sys.executable} -m migrate.lab {vm} --name none-{os.getpid()} spawn peer -- sleep 1 2>&1 1>&-"
    said = "standard output is closed, so nobody could be told the PID: nothing was started"
    assert shell(f"{words} | cat; echo ${{PIPESTATUS[0]}}") == f"migrate-lab: {said}\n125\n"


@pytest.mark.parametrize("words", ["status", "status --json"])
def test_a_status_that_standard_output_does_not_take(words: str) -> None:
    script = f"{sys.executable} -m migrate.lab --name none-{os.getpid()} {words} 2>&1 >/dev/full; echo $?"
    assert shell(script) == "migrate-lab: standard output: No space left on device\n1\n"


def test_an_up_that_cannot_be_shown_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Lab, "up", lambda _: True)
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(os, "dup2", lambda *_: None)
        assert cli.main(["--name", "none", "up"]) == 1
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()
    said = "migrate-lab: lab 'none' is up; standard output: No space left on device\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("said", [b"", frames.frame(frames.STATUS, b"0")])
def test_the_end_of_the_machine_is_the_end(said: bytes) -> None:
    """What it had said before is heard; the network does not tell its end."""
    ours, theirs = socket.socketpair()
    end, machine = os.pipe()
    told, teller = os.pipe()
    with ours, theirs:
        theirs.sendall(said)
        os.close(machine)
        passing = Exchange(ours, told, end=end)
        if said:
            assert passing.run() == 0
        else:
            with pytest.raises(Gone, match="the machine has ended"):
                passing.run()
    for descriptor in (end, told, teller):
        os.close(descriptor)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after_s", [PATIENCE_S * 2, HASTE_S + 0.3, 0])
def test_a_signal_ends_what_no_machine_answers(number: signal.Signals, after_s: float) -> None:
    """Who does not take what is sent stands for a kernel that has stopped. A second one finds no patience."""
    ours, theirs = socket.socketpair()
    told, teller = os.pipe()
    with ours, theirs:
        passing = Exchange(ours, told)
        os.write(teller, bytes([signal.SIGHUP, 0]))
        begun = time.monotonic()
        timer = threading.Timer(after_s, os.write, (teller, bytes([number, 0])))
        timer.start()
        with pytest.raises(Ended, match="since the machine does not answer") as caught:
            passing.run()
        took = time.monotonic() - begun
        timer.cancel()
        timer.join()
        second = HASTE_S < after_s < PATIENCE_S
        assert caught.value.number == (number if second else signal.SIGHUP)
        assert took > after_s if second else took >= PATIENCE_S
        assert took < PATIENCE_S + (0 if second else 3)
    for descriptor in (told, teller):
        os.close(descriptor)


def test_a_command_that_takes_its_time_after_a_signal_is_waited_for() -> None:
    """However often: its machine has taken them. Nor does a signal that asks for no end give up a machine."""
    ours, theirs = socket.socketpair()
    told, teller = os.pipe()
    with ours, theirs:
        passing = Exchange(ours, told)
        os.write(teller, bytes([signal.SIGUSR1, 0]))

        def answer() -> None:
            time.sleep(PATIENCE_S + 0.5)
            theirs.recv(100)
            for _ in range(2):
                os.write(teller, bytes([signal.SIGINT, 0]))
                theirs.recv(100)
                time.sleep(PATIENCE_S / 2 + 0.3)
            theirs.sendall(frames.frame(frames.STATUS, b"7"))

        with ThreadPoolExecutor(1) as other:
            other.submit(answer)
            assert passing.run() == 7
    for descriptor in (told, teller):
        os.close(descriptor)


# --- terminals ----------------------------------------------------------------------------------------------


#: bash may lose one that comes while it is at work for another.
TELLS_SIZE = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})
while True:
    print(os.get_terminal_size(), flush=True)
    signal.sigwait({signal.SIGWINCH})
"""


@contextlib.contextmanager
def in_terminal(*words: str) -> Iterator[tuple[int, int]]:
    """Run it as the only one in a terminal; yields its PID and the other side of that."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(PROGRAM[0], [*PROGRAM, *words])
    try:
        yield pid, terminal
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)


def said(terminal: int, wanted: bytes) -> bytes:
    """Read from it until *wanted* has come."""
    found = b""
    while wanted not in found:
        assert select.select([terminal], [], [], LIMIT_S)[0], found
        found += os.read(terminal, 4096)
    return found


def test_ctrl_c_ends_what_a_shell_waits_for() -> None:
    """It is for all that the command has started, as a terminal has it: a shell waits for its children."""
    with in_terminal("sh", "-c", "sleep 8303; echo not reached") as (pid, terminal):
        started("sleep 8303")
        os.write(terminal, b"\x03")
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGINT
    assert pids("sleep 8303") == []


def test_a_shell_is_told_of_a_window_that_is_resized() -> None:
    """The kernel tells who runs in it."""
    with in_terminal("-t", sys.executable, "-c", TELLS_SIZE) as (_, terminal):
        said(terminal, b"columns=0, lines=0)")
        for rows, columns in ((40, 100), (50, 120)):
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            said(terminal, f"columns={columns}, lines={rows})".encode())


def test_what_is_typed_before_the_terminal_is_raw_is_not_lost() -> None:
    """A script that drives it has no way to know when that is."""
    with in_terminal("-t", "sh", "-c", "read -r line; echo got $line") as (_, terminal):
        os.write(terminal, b"typed early\n")
        said(terminal, b"got typed early")


#: An interactive shell ignores SIGTERM, and may stay at a SIGHUP.
STAYS = "trap : TERM HUP; while :; do sleep %s; done"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_what_has_a_terminal_and_restores_that(number: signal.Signals) -> None:
    with in_terminal("-t", "sh", "-c", STAYS % f"84{number}") as (pid, terminal):
        before = termios.tcgetattr(terminal)
        started(f"sleep 84{number}")
        assert not termios.tcgetattr(terminal)[3] & termios.ICANON
        os.kill(pid, number)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == number
        assert termios.tcgetattr(terminal) == before
    eventually(lambda: not pids(f"sleep 84{number}"), "what ran there has ended")


def test_a_terminal_that_is_gone_ends_what_has_it() -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(PROGRAM[0], [*PROGRAM, "-t", "sh", "-c", STAYS % 8400])
    started("sleep 8400")
    os.close(terminal)
    try:
        eventually(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT), "it has ended")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    eventually(lambda: not pids("sleep 8400"), "what ran there has ended")
