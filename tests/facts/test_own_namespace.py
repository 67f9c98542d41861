"""PID namespaces of moved trees: the init that keeps one, how it is known again, and what it takes to enter it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from netns import eventually

from migrate.criu import own_namespace, pid_namespace
from migrate.criu.worker import Options, Worker
from migrate.processes import identity

SCRIPT = str(Path(pid_namespace.__file__))
#: Leaves a child that does ACTION, and ends.
LEAVES = """
import os, sys, time
own = os.getpid()
def become(number):
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(number - 1))
def left():
    while os.getppid() != 1:
        time.sleep(0.01)
if os.fork() == 0:
    left()
    {action}
"""
SLEEP = "time.sleep(1000)"
#: A daemon.
ALONE = (
    "os.setsid(); [os.dup2(os.open('/dev/null', os.O_RDWR), fd) for fd in (0, 1, 2)]; os.closerange(3, 99)"
)
#: A process that gets the number that the program had, and ends as a child of the init; a file says that it has.
SAME_NUMBER = """
    if os.fork() == 0:
        become(own)
        child = os.fork()
        if child == 0:
            left()
            os._exit(0)
        os._exit(child != own)
    assert os.wait()[1] == 0
    while os.path.exists(f"/proc/{{own}}"):
        time.sleep(0.01)
    open({done!r}, "w").close()
    time.sleep(1000)
"""


@contextlib.contextmanager
def namespace(action: str, *before: str) -> Iterator[tuple[int, int]]:
    """One as a restore leaves it: its init, and the only process in it, which does *action*."""
    program = LEAVES.format(action=action)
    command = [*before, sys.executable, "-I", "-S", SCRIPT, "300", sys.executable, "-c", program]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    init = int(process.stdout.readline())
    try:
        assert process.wait(20) == 0
        process.stdout.close()
        yield init, eventually(lambda: _only_child(init), "the program has left its child")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(init, signal.SIGKILL)
        eventually(lambda: not Path(f"/proc/{init}").exists() or identity.state(init) == "Z", "it has ended")


def test_the_init_survives_a_process_with_the_number_of_the_program(tmp_path: Path) -> None:
    """Numbers are given again when all have been given once."""
    done = tmp_path / "done"
    with namespace(SAME_NUMBER.format(done=str(done)).strip()) as (init, child):
        eventually(done.exists, "a process had the number, and was reaped")
        assert identity.alive(identity.identity(init)) and identity.alive(identity.identity(child))


def test_criu_in_it_writes_the_numbers_that_are_seen_in_it(tmp_path: Path) -> None:
    """It is asked for the process by such a number, and waits for us as any worker; the directory of its images it
    has inherited. It is not told to kill the tree: the init ends with its last task, and the kernel kills who else
    is in the namespace, often CRIU before it has answered. As in a move we kill what it has dumped, then hang up.
    """
    with namespace(f"{ALONE}; {SLEEP}") as (init, child), own_namespace.opened(child) as found:
        eventually(lambda: is_alone(child), "it is a daemon")
        own, images = identity.innermost(child), os.open(tmp_path, os.O_RDONLY)
        assert own != child
        worker = Worker(within=found, inherit=[images])
        os.close(images)
        assert identity.innermost(worker.pid) not in (own, worker.pid)
        going = worker.dump(own, Options(tmp_path, "criu.log", images_fd=images))
        assert "post-dump" in (one.name for one in going)
        os.kill(child, signal.SIGKILL)
        going.close()
        worker.close()
        assert (tmp_path / f"core-{own}.img").exists()
        assert not (tmp_path / f"core-{child}.img").exists()
        eventually(lambda: not Path(f"/proc/{init}").exists() or identity.state(init) == "Z", "the init ends")


def is_alone(pid: int) -> bool:
    """Whether it has done what ALONE says."""
    try:
        opened = {str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()}
    except FileNotFoundError:  # closed meanwhile
        return False
    return os.getsid(pid) == pid and opened == {"/dev/null"}


def pid_namespace_of(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/pid").readlink())


def test_it_is_known_again() -> None:
    with namespace(SLEEP) as (init, child), own_namespace.opened(child) as found:
        assert found is not None
        assert found.init == init
        assert found.names["pid"] == pid_namespace_of(child) != pid_namespace_of(os.getpid())
        assert sorted(own_namespace.members(found)) == sorted([init, child])
        numbers = own_namespace.numbers(child, [child])
        assert numbers.inside(init) == 1
        assert numbers.here(numbers.inside(child)) == child


def test_an_ordinary_process_has_none() -> None:
    assert own_namespace.of(os.getpid()) is None
    assert not own_namespace.numbers(os.getpid(), [os.getpid()]).own


def test_one_of_somebody_else_is_none_of_ours() -> None:
    """Its init is another program."""
    command = ["unshare", "--pid", "--mount", "--fork", "--kill-child", "sh", "-c", "sleep 1000 & wait"]
    with subprocess.Popen(command) as process:
        try:
            one = eventually(lambda: _grandchild(process.pid), "it runs")
            assert own_namespace.of(one) is None
        finally:
            process.kill()


def test_one_in_a_user_namespace_is_none_of_ours() -> None:
    """Anybody can make one in which he is root, with whatever mounted, and start what is called as our init is:
    a CRIU that root starts in it would run his programs.
    """
    with namespace(SLEEP, "unshare", "--user", "--map-root-user") as (_, child):
        assert own_namespace.of(child) is None


def test_who_has_gone_to_other_mounts_is_not_in_ours() -> None:
    action = "os.execvp('unshare', ['unshare', '--mount', 'sleep', '1000'])"
    with namespace(action) as (_, child):
        eventually(lambda: b"sleep" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0], "it has")
        assert own_namespace.of(child) is None


def test_a_thread_starts_children_in_it_and_goes_back() -> None:
    """setns(2) of a PID namespace is of one thread: what others start meanwhile is here. A child keeps its parent,
    who waits for it by the number that it has here."""
    with namespace(SLEEP) as (init, child), own_namespace.opened(child) as found:
        started: list[subprocess.Popen[bytes]] = []
        with own_namespace.children_in(found):
            inside = subprocess.Popen(["sleep", "1000"])
            other = threading.Thread  # a thread cannot be made meanwhile
            with pytest.raises(RuntimeError):
                other(target=lambda: None).start()
        outside = subprocess.Popen(["sleep", "1000"])
        started += [inside, outside]
        try:
            assert pid_namespace_of(inside.pid) == pid_namespace_of(init)
            assert pid_namespace_of(outside.pid) == pid_namespace_of(os.getpid())
            assert identity.innermost(inside.pid) != inside.pid
        finally:
            for one in started:
                one.kill()
                assert one.wait(10) == -signal.SIGKILL


def _only_child(pid: int) -> int:
    """0 where there is none, or another with it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if len(children) == 1 else 0


def _grandchild(pid: int) -> int:
    child = _only_child(pid)
    return child and _only_child(child)
