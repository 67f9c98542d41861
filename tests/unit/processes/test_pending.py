"""Signals that wait for a process, and which of them would be lost."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.wait import eventually
from pycriu.images import magic, pb

from migrate.errors import CriuError, Ended, Signalled
from migrate.origin.frozen import FrozenTree
from migrate.processes import identity, pending, ptrace, second_line
from migrate.processes.pending import Place

STATUS = b"""Name:\tx\nSigPnd:\t0000000000000001\nShdPnd:\t0000000000004002\nSigBlk:\t0000000000000004
SigIgn:\t0000000001001000\nSigCgt:\t0000000180004002\n"""


def test_what_a_status_says() -> None:
    found = pending.parse(STATUS)
    assert found.own == {1} and found.shared == {2, 15} and found.blocked == {3}
    assert found.ignored == {13, 25} and found.caught == {2, 15, 32, 33}


@pytest.mark.parametrize(
    "status", [b"", b"SigPnd:\t0\n", b"SigPnd: x\nShdPnd:\t0\nSigBlk: 0\nSigIgn: 0\nSigCgt: 0"]
)
def test_what_is_no_status(status: bytes) -> None:
    with pytest.raises(ValueError):
        pending.parse(status)


def waiting(*numbers: int, blocked: int = 64) -> pending.Waiting:
    return pending.Waiting(frozenset(numbers), frozenset({blocked}))


def test_what_is_new() -> None:
    """What waited before is in the images; the SIGSTOP of a thread is the driver's, that of a process is not."""
    before = {Place(7, 0): waiting(15, blocked=1), Place(7, 7): waiting(2)}
    now = {
        Place(7, 0): waiting(15, 1, 19),
        Place(7, 7): waiting(2, 15, 19, blocked=15),
        Place(7, 8): waiting(9),
    }
    found = [(place.pid, number, blocked) for place, number, blocked in pending.new(before, now)]
    assert found == [(7, 1, True), (7, 19, False), (7, 15, False), (7, 9, False)]
    assert list(pending.new(now, now)) == []


def test_names() -> None:
    assert [pending.name(n) for n in (15, signal.SIGRTMIN, signal.SIGRTMIN + 3, 32)] == [
        "SIGTERM",
        "SIGRTMIN",
        "SIGRTMIN+3",
        "signal 32",
    ]


PROGRAM = """import signal, sys, time
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
signal.signal(signal.SIGWINCH, lambda *_: None)
taken = set(range(1, 65)) - {int(one) for one in sys.argv[1:]}
signal.pthread_sigmask(signal.SIG_SETMASK, taken)
print(flush=True)
time.sleep(1000)
"""


@contextlib.contextmanager
def program(*heard: int) -> Iterator[int]:
    """The PID of a program that has blocked all signals but those."""
    command = [sys.executable, "-c", PROGRAM, *map(str, heard)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as made:
        assert made.stdout is not None
        made.stdout.readline()
        eventually(lambda: identity.state(made.pid) == "S", "it sleeps")
        yield made.pid
        made.kill()


@pytest.fixture
def deaf() -> Iterator[int]:
    """The PID of a program that has blocked all signals, as one that is frozen takes none."""
    with program() as pid:
        yield pid


@pytest.fixture
def held() -> Iterator[int]:
    """One that hears these, and is held: what it is sent waits, even what it ignores."""
    with (
        program(signal.SIGCHLD, signal.SIGUSR1, signal.SIGCONT) as pid,
        ptrace.holding(pid, time.monotonic() + 10),
    ):
        yield pid


@pytest.fixture
def frozen(deaf: int) -> Iterator[FrozenTree]:
    os.kill(deaf, signal.SIGHUP)  # before: it is dumped
    made = FrozenTree([identity.identity(deaf)], frozenset())
    yield made
    made.close()


def no_images(monkeypatch: pytest.MonkeyPatch, *of_timers: int) -> None:
    monkeypatch.setattr(pending, "of_timers", lambda core: frozenset(of_timers))
    monkeypatch.setattr(pending, "of_expired_timers", lambda core: frozenset())


def test_nothing_new(frozen: FrozenTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_images(monkeypatch)
    frozen.look(tmp_path)
    assert [(one.pid, one.state) for one in frozen.states()] == [(frozen.tasks[0][0], "S")]


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGWINCH, signal.SIGRTMIN + 1, signal.SIGURG, signal.SIGUSR1]
)
def test_a_signal_that_came_afterwards(
    frozen: FrozenTree, deaf: int, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a program blocks it takes by sigwait(3) or signalfd(2), also what does nothing else, or is ignored."""
    no_images(monkeypatch)
    os.kill(deaf, number)
    with pytest.raises(Signalled, match=f"process {deaf} was sent {pending.name(number).replace('+', '.')}"):
        frozen.look(tmp_path)


@pytest.mark.parametrize("stopped", [False, True])
def test_sigcont_matters_to_who_was_stopped(
    held: int, stopped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody else is kept still by what no signal ends."""
    no_images(monkeypatch)
    frozen = FrozenTree([identity.identity(held)], frozenset({held} if stopped else ()))
    os.kill(held, signal.SIGCONT)
    with pytest.raises(Signalled, match="SIGCONT") if stopped else contextlib.nullcontext():
        frozen.look(tmp_path)
    frozen.close()


@pytest.mark.parametrize("number", [signal.SIGCHLD, signal.SIGUSR1])
def test_a_signal_that_nobody_misses(
    held: int, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits, for the program is traced, and does nothing."""
    no_images(monkeypatch)
    frozen = FrozenTree([identity.identity(held)], frozenset())
    os.kill(held, number)
    assert number in pending.read([held])[Place(held, 0)].signals
    frozen.look(tmp_path)
    frozen.close()


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGTSTP])
def test_what_stops_it_beside_our_own_sigstop(
    held: int, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It matters, but for what was stopped anyway, and waits on when ours is taken back."""
    no_images(monkeypatch)
    task = identity.identity(held)
    running, stopped = (FrozenTree([task], frozenset(pids)) for pids in ((), (held,)))
    second_line.hold(task)
    running.look(tmp_path)
    os.kill(held, number)
    stopped.look(tmp_path)
    with pytest.raises(Signalled, match=f"process {held} was sent {pending.name(number)}"):
        running.look(tmp_path)
    assert second_line.take_back(task)
    now = pending.read([held])
    assert number in now[Place(held, 0)].signals and now[Place(held, held)].signals == set()
    for one in (running, stopped):
        one.close()


def test_a_signal_that_waits_already(
    frozen: FrozenTree, deaf: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_images(monkeypatch)
    os.kill(deaf, signal.SIGHUP)
    frozen.look(tmp_path)


def image(entry: Any) -> bytes:
    """An image with *entry*, in which every number that must be there and is not is 0."""
    while missing := entry.FindInitializationErrors():
        for path in missing:
            *parents, name = re.findall(r"\w+(?:\[\d+\])?", path)
            at = entry
            for parent in parents:
                word, _, index = parent.partition("[")
                at = getattr(at, word)[int(index[:-1])] if index else getattr(at, word)
            if at.DESCRIPTOR.fields_by_name[name].message_type:
                getattr(at, name).SetInParent()
            else:
                setattr(at, name, getattr(at, name))
    data = entry.SerializeToString()
    numbers = (magic.by_name["IMG_COMMON"], magic.by_name["CORE"], len(data))
    return b"".join(one.to_bytes(4, "little") for one in numbers) + data


def test_signals_of_timers_in_an_image(tmp_path: Path) -> None:
    entry, core = pb.core_entry(mtype=1), tmp_path / "core-7.img"
    core.write_bytes(image(entry))
    assert pending.of_timers(core) == set()
    entry.tc.timers.SetInParent()
    core.write_bytes(image(entry))
    assert pending.of_timers(core) == set()  # none of them is set
    entry.tc.timers.real.isec = entry.tc.timers.virt.vusec = 1
    entry.tc.timers.posix.add(si_signo=34)
    core.write_bytes(image(entry))
    assert pending.of_timers(core) == {signal.SIGALRM, signal.SIGVTALRM, 34}


def test_signals_of_expired_timers_in_an_image(tmp_path: Path) -> None:
    """What somebody may have sent is not among them."""
    entry, core = pb.core_entry(mtype=1), tmp_path / "core-7.img"
    core.write_bytes(image(entry))
    assert pending.of_expired_timers(core) == set()
    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGPROF):
        entry.tc.signals_s.signals.add(siginfo=int(number).to_bytes(4, "little") + bytes(124))
    core.write_bytes(image(entry))
    assert pending.of_expired_timers(core) == {signal.SIGALRM, signal.SIGPROF}


def test_a_timer_expires_again_there(
    frozen: FrozenTree, deaf: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_images(monkeypatch, signal.SIGALRM)
    os.kill(deaf, signal.SIGALRM)
    frozen.look(tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "Unexpected {} task interruption, aborting",
            "was interrupted while it was frozen, as CRIU worked in it",
        ),
        ("{} was stopped by 5 unexpectedly", "was interrupted while it was frozen, as CRIU worked in it"),
        ("{} was stopped by 19 unexpectedly", "was sent SIGSTOP while it was frozen"),
    ],
    ids=["nothing", "a trap", "a stop"],
)
def test_what_interrupted_criu_is_told_as_far_as_it_was_seen(
    frozen: FrozenTree, deaf: int, line: str, said: str
) -> None:
    """Other signals than these two do that as well; the log names one of them only where it stops the task."""
    error = CriuError("it failed", details=[f"Error (compel/src/lib/infect.c:607): {line.format(deaf)}"])
    with pytest.raises(Signalled) as caught, frozen.dumped():
        raise error
    assert str(caught.value) == f"process {deaf} {said}"
    assert ("SIGCONT" in caught.value.problem.hint) == ("SIGSTOP" not in said)


def test_a_kill(frozen: FrozenTree, deaf: int, tmp_path: Path) -> None:
    assert frozen.running == frozen.tasks
    os.kill(deaf, signal.SIGKILL)
    eventually(lambda: not identity.alive(frozen.tasks[0]), "it is dead")
    looks: list[Callable[[], None]] = [
        frozen.require,
        lambda: frozen.look(tmp_path),
    ]
    for look in looks:
        with pytest.raises(Ended, match=f"process {deaf} was killed while it was frozen"):
            look()
    assert frozen.running == []
