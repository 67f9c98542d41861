"""What surrounds a task, read and put back from outside; the judge is what the kernel says of a real process."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import inventories as two
import pytest
from pycriu.images import magic, pb

from migrate.checks import around
from migrate.criu import parents_death
from migrate.errors import ProtocolError
from migrate.pb.session_pb2 import Obstacle, Surroundings, ThreadSurroundings
from migrate.processes import slices, surroundings

PROGRAM = """import threading
t = threading.Thread(target=input)
t.start()
print(t.native_id, flush=True)
"""


@pytest.fixture
def threads() -> Iterator[tuple[int, int]]:
    """A process with a second thread: both numbers."""
    started = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with started:
        assert started.stdout is not None
        yield started.pid, int(started.stdout.readline())
        started.kill()


def of_thread(pid: int, tid: int) -> ThreadSurroundings:
    (found,) = surroundings.read([pid])
    (thread,) = (one for one in found.threads if one.tid == tid)
    return thread


def test_each_thread_has_its_own(threads: tuple[int, int]) -> None:
    pid, tid = threads
    subprocess.run(["ionice", "-c", "2", "-n", "6", "-p", str(tid)], check=True)
    os.sched_setaffinity(tid, {0})
    assert of_thread(pid, tid).io_priority == 2 << 13 | 6
    assert of_thread(pid, tid).processors == ([0] if (os.cpu_count() or 1) > 1 else [])
    assert of_thread(pid, pid).io_priority == 0
    assert of_thread(pid, pid).processors == []


def test_what_was_read_is_put_back(threads: tuple[int, int]) -> None:
    pid, tid = threads
    before = surroundings.read([pid])
    subprocess.run(["ionice", "-c", "3", "-p", str(tid)], check=True)
    os.sched_setaffinity(tid, {0})
    Path(f"/proc/{tid}/timerslack_ns").write_text("777")
    Path(f"/proc/{pid}/coredump_filter").write_text("0x7f")
    assert surroundings.read([pid]) != before
    assert surroundings.put_back(before, {pid: pid}) == []
    assert surroundings.read([pid]) == before


def test_limits(threads: tuple[int, int]) -> None:
    """A soft limit is put back; one above the hard limit of a root without CAP_SYS_RESOURCE is told."""
    pid, _ = threads
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (300, 900))
    (before,) = surroundings.read([pid])
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (200, 900))
    assert surroundings.put_back([before], {pid: pid}) == []
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (300, 900)
    # Above fs.nr_open nobody may set it.
    for one in before.limits:
        if one.resource == resource.RLIMIT_NOFILE:
            one.soft = one.hard = (1 << 64) - 1
    (told,) = surroundings.put_back([before], {pid: pid})
    assert told.startswith(
        f"process {pid}: its limit NOFILE is 300 (hard: 900), not unlimited (hard: unlimited) as before"
    )
    before.limits.add(resource=4000, soft=1, hard=1)
    assert len(surroundings.put_back([before], {pid: pid})) == 1


def test_processors_that_are_not_there(threads: tuple[int, int]) -> None:
    """It gets all, or those that are; the user hears of it once."""
    pid, tid = threads
    wanted = surroundings.read([pid])[0]
    for thread in wanted.threads:
        thread.processors[:] = [0, 4000]
    (told,) = surroundings.put_back([wanted], {pid: pid})
    assert told.startswith(f"process {pid}: it may use processor 0, not 0, 4000 as before")
    assert os.sched_getaffinity(tid) == {0}
    for thread in wanted.threads:
        thread.processors[:] = [4000]
    assert len(surroundings.put_back([wanted], {pid: pid})) == 1
    assert len(os.sched_getaffinity(tid)) == os.cpu_count()


#: Of all but some kernels that were built for one purpose (CONFIG_SCHED_AUTOGROUP).
has_autogroups = pytest.mark.skipif(
    not Path("/proc/self/autogroup").exists(), reason="this kernel has no autogroups"
)


@pytest.fixture
def session() -> Iterator[tuple[int, int]]:
    """The leader of a session, and its child, which is in it."""
    code = "import os, signal\nif pid := os.fork(): print(pid, flush=True)\nsignal.pause()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    ) as started:
        assert started.stdout is not None
        yield started.pid, int(started.stdout.readline())
        os.killpg(started.pid, 9)


@has_autogroups
def test_the_nice_value_of_a_session(session: tuple[int, int]) -> None:
    """The judge is the kernel: it is that of every process of the session."""
    leader, child = session
    Path(f"/proc/{leader}/autogroup").write_text("7")
    before = surroundings.read([leader, child])
    assert [one.autogroup_nice for one in before] == [7, 7]
    Path(f"/proc/{leader}/autogroup").write_text("0")
    assert surroundings.put_back(before, {leader: leader, child: child}) == []
    assert Path(f"/proc/{child}/autogroup").read_text().endswith(" nice 7\n")


@has_autogroups
def test_the_session_of_somebody_else_is_left_as_it_is(session: tuple[int, int]) -> None:
    """Its leader was not built here: it may be the agent's own."""
    leader, child = session
    (before,) = surroundings.read([child])
    before.autogroup_nice = 7
    (told,) = surroundings.put_back([before], {child: child})
    assert told.startswith(
        f"process {child}: the nice value of its session as a whole (autogroup) is 0, not 7"
    )
    assert Path(f"/proc/{leader}/autogroup").read_text().endswith(" nice 0\n")


def test_one_that_has_ended_is_left_out(threads: tuple[int, int]) -> None:
    assert surroundings.read([1 << 22, threads[0]])[0].pid == threads[0]
    assert surroundings.put_back([Surroundings(pid=5)], {}) == []


@pytest.mark.parametrize("wanted", [0x0040000, None])
def test_personality_comes_by_descent(wanted: int | None) -> None:
    own = surroundings.personality(os.getpid())
    with surroundings.with_personality(wanted):
        said = subprocess.run(["cat", "/proc/self/personality"], capture_output=True, text=True, check=True)
    assert int(said.stdout, 16) == (own if wanted is None else wanted)
    assert surroundings.personality(os.getpid()) == own


def test_what_other_pids_mean_is_said() -> None:
    """By the number that the process takes for its own, which may be another one than here."""
    assert around.notes_on_pids(two.process(), two.destination(), 100) == []
    cron = two.destination(taken_pids=[100], taken_by={100: "cron"})
    (note,) = around.notes_on_pids(two.process(), cron, 77)
    assert "100 is taken there by cron" in note and "script that says 77 means another" in note
    (note,) = around.notes_on_pids(two.process(), two.destination(pid_max=100), 100)
    assert "end below 100" in note


# --- the parent's death ----------------------------------------------------------------------------------


def core(path: Path, number: int) -> None:
    entry = pb.core_entry(mtype=1)
    entry.thread_core.pdeath_sig = number
    entry.thread_core.comm = "name"
    message = entry.SerializePartialToString()
    words = (magic.by_name["IMG_COMMON"], magic.by_name["CORE"], len(message))
    path.write_bytes(b"".join(word.to_bytes(4, "little") for word in words) + message)


def test_only_the_root_forgets_its_parent(tmp_path: Path) -> None:
    for number, signal in ((7, 9), (8, 0), (9, 15), (10, 15)):
        core(tmp_path / f"core-{number}.img", signal)
    other = (tmp_path / "core-10.img").read_bytes()
    told = parents_death.forget(tmp_path, 7, [7, 8, 9])
    assert [line.split(" when ")[0] for line in told] == [
        "process 7 wanted SIGKILL",
        "process 7 wanted SIGTERM",
    ]
    for number in (7, 8, 9):
        data = (tmp_path / f"core-{number}.img").read_bytes()
        entry = pb.core_entry()
        entry.ParseFromString(data[12:])
        assert len(data) == 12 + int.from_bytes(data[8:12], "little")
        assert (entry.thread_core.pdeath_sig, entry.thread_core.comm) == (0, "name")
    assert (tmp_path / "core-10.img").read_bytes() == other
    assert parents_death.forget(tmp_path, 7, [7, 8, 9]) == []


@pytest.mark.parametrize("data", [b"", b"\0" * 11, b"\0" * 8 + b"\5\0\0\0\xff\xff\xff\xff\xff"])
def test_what_is_no_image(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "core-7.img").write_bytes(data)
    with pytest.raises(ProtocolError, match="core-7.img is not an image"):
        parents_death.forget(tmp_path, 7, ())


# --- what is told ----------------------------------------------------------------------------------------


def test_a_memory_policy_is_told() -> None:
    (note,) = around.notes(
        two.process(tasks=[two.task(memory_policy="bind:0"), two.task(101)]), two.destination()
    )
    assert note.startswith("the memory policy bind:0 of nginx (PID 100) does not move with it")


def test_a_policy_that_criu_cannot_set_is_refused() -> None:
    obstacle = Obstacle(code="scheduling", pid=100, what="SCHED_DEADLINE")
    reason = two.only(two.reasons(two.process(obstacles=[obstacle])))
    assert (reason.code, reason.text) == (
        "scheduling",
        "nginx (PID 100) runs under SCHED_DEADLINE, which CRIU cannot set",
    )
    assert "chrt --all-tasks --other" in reason.remedy


def test_the_slice_that_one_thread_has_asked_for(threads: tuple[int, int]) -> None:
    """The other one has what its kernel gives to all, and so has who is put back to that; nothing else changes."""
    pid, tid = threads
    os.setpriority(os.PRIO_PROCESS, tid, 7)
    if not slices.usual():
        pytest.skip("this kernel has no slices")
    slices.ask(tid, 3_000_000)
    before = surroundings.read([pid])
    assert (of_thread(pid, tid).slice_ns, of_thread(pid, pid).slice_ns) == (3_000_000, 0)
    slices.ask(tid, 0)
    slices.ask(pid, 4_000_000)
    assert surroundings.read([pid]) != before
    assert surroundings.put_back(before, {pid: pid}) == []
    assert surroundings.read([pid]) == before
    assert os.getpriority(os.PRIO_PROCESS, tid) == 7
