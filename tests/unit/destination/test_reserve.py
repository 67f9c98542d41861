"""Memory is found for the tree while its images come, and given back before CRIU builds it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from destination_fakes import World, world
from harness.wait import eventually

from migrate.destination import prepared, reserving
from migrate.destination.reserve import LEAST_BYTES, Reserve
from migrate.destination.reserving import PIECE_BYTES, SPARED_BYTES
from migrate.link.payloads import Piece

__all__ = ["world"]

MB = 1 << 20
#: More than the process needs for itself, less than two pieces.
ITSELF_BYTES = 28 * MB


@pytest.fixture
def held() -> Iterator[Reserve]:
    made = Reserve(LEAST_BYTES)
    yield made
    made.close()


def has(pid: int | None) -> int:
    """Bytes of memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_it_grows_as_memory_arrives_and_not_beyond_what_was_checked(held: Reserve) -> None:
    held.arrived(PIECE_BYTES - 1)
    assert held.pid is None
    held.arrived(PIECE_BYTES + 1)
    eventually(lambda: has(held.pid) > 2 * PIECE_BYTES, "two pieces are held")
    assert has(held.pid) < 2 * PIECE_BYTES + ITSELF_BYTES
    assert Path(f"/proc/{held.pid}/oom_score_adj").read_text() == "1000\n"
    held.arrived(10 * LEAST_BYTES)  # pages that have changed come again
    eventually(lambda: has(held.pid) > LEAST_BYTES, "all that may be held is")
    eventually(lambda: "pipe_read" in Path(f"/proc/{held.pid}/wchan").read_text(), "it waits for more")
    assert has(held.pid) < LEAST_BYTES + ITSELF_BYTES


def test_all_is_given_back_when_it_is_closed(held: Reserve) -> None:
    held.arrived(LEAST_BYTES)
    pid = held.pid
    held.let_go()
    held.let_go()
    held.arrived(LEAST_BYTES)
    held.close()
    held.close()
    held.arrived(LEAST_BYTES)
    assert held.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid or 0, 0)


def test_little_memory_needs_no_process() -> None:
    held = Reserve(LEAST_BYTES - 1)
    held.arrived(LEAST_BYTES)
    assert held.pid is None
    held.close()


@pytest.mark.parametrize("why", ["it cannot be started", "it was killed"])
def test_nothing_is_lost_without_it(held: Reserve, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    if why == "it was killed":
        held.arrived(PIECE_BYTES)
        os.kill(held.pid or 0, signal.SIGKILL)
        os.waitid(os.P_PID, held.pid or 0, os.WEXITED | os.WNOWAIT)
    else:
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
    held.arrived(PIECE_BYTES)
    held.arrived(PIECE_BYTES)
    held.close()


def test_it_ends_with_who_has_started_it(tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.path[:0] = sys.argv[1:]\n"
        "from migrate.destination.reserve import LEAST_BYTES, Reserve\n"
        "held = Reserve(LEAST_BYTES); held.arrived(LEAST_BYTES)\n"
        "os.dup(held._process.stdin.fileno()); os.set_inheritable(3, True)\n"
        "print(held.pid, flush=True); input()"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", code, *filter(None, sys.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert starter.stdout and starter.stdin
    pid = int(starter.stdout.readline())
    eventually(lambda: has(pid) > LEAST_BYTES, "all is held")
    watched = os.pidfd_open(pid)
    starter.kill()
    starter.wait()
    eventually(lambda: not Path(f"/proc/{pid}/statm").exists() or has(pid) == 0, "it has ended")
    os.close(watched)


def test_a_kernel_that_does_not_give_it() -> None:
    """Under a limit of its own: it ends, and has taken nothing from anybody."""
    command = ["prlimit", f"--as={96 * MB}", sys.executable, "-I", "-S", reserving.__file__, str(1 << 30)]
    done = subprocess.run(command, input=bytes(100), capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    assert b"Cannot allocate memory" in done.stderr


@pytest.mark.parametrize(
    ("available", "coming", "taken"),
    [
        (SPARED_BYTES + PIECE_BYTES, 0, True),
        (SPARED_BYTES + PIECE_BYTES, -5, True),
        (SPARED_BYTES + PIECE_BYTES - 1, 0, False),
        (SPARED_BYTES + 2 * PIECE_BYTES, PIECE_BYTES, True),
        (SPARED_BYTES + 2 * PIECE_BYTES, PIECE_BYTES + 1, False),
    ],
)
def test_what_images_and_others_need_is_left(available: int, coming: int, taken: bool) -> None:
    assert reserving.has_room(available, coming) is taken


def test_what_is_available_is_what_the_kernel_says() -> None:
    said = Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]
    assert abs(reserving.available_bytes() - int(said) * 1024) < 4 << 30


@pytest.fixture
def told(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A destination that tells of it, too."""
    monkeypatch.setattr(prepared, "Reserve", world.fake("reserve"))
    return world


def test_it_is_held_until_the_freeze_and_given_back_before_the_build(told: World) -> None:
    say = dict(told.messages())
    say["prepare"]()
    taken = told.destination.handlers()["image"]
    taken(Piece(name="level-1/pages-1.img", data=b"page"))
    assert told.calls[-1] == "reserve.arrived"
    taken(Piece(name="core-1.img"))
    assert told.calls[-1] == "reserve.let_go"
    for kind in ("copy", "connections", "restore"):
        say[kind]()
    assert told.calls.index("reserve.close") < told.calls.index("worker.restore")


def test_it_is_given_back_if_it_comes_to_nothing(told: World) -> None:
    told.run(until="image")
    told.destination.settle()
    assert told.calls.index("reserve.close") < told.calls.index("roll_back")
