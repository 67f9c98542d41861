"""Limits of a process that are too narrow for CRIU's part in it; the judge is the kernel, with real processes."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator

import inventories as two
import pytest

from migrate.inventory import cramped
from migrate.pb.session_pb2 import Obstacle
from migrate.processes import identity, leeway, surroundings
from migrate.recovery.entries import Limit

#: Says how many descriptors it can open, which it closes again; or whether it can map so many bytes.
PROGRAM = """
import mmap, os, sys
def free():
    opened = []
    try:
        while True: opened.append(os.dup(0))
    except OSError: pass
    for one in opened: os.close(one)
    return len(opened)
def maps(size):
    try: mmap.mmap(-1, size).close()
    except (OSError, MemoryError): return False
    return True
print(flush=True)
for line in sys.stdin: print(eval(line), flush=True)
"""


class Program:
    """A process that tells what it can do."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", PROGRAM]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.pid = self.process.pid
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def ask(self, question: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(question + "\n")
        return self.process.stdout.readline().strip()

    def limit(self, kind: int, soft: int, hard: int) -> None:
        resource.prlimit(self.pid, kind, (soft, hard))

    def mapped(self) -> int:
        return int(self.ask("open('/proc/self/statm').read().split()[0]")) * resource.getpagesize()


@pytest.fixture
def program() -> Iterator[Program]:
    made = Program()
    with made.process:
        yield made
        made.process.kill()


@pytest.mark.parametrize("free", range(leeway.DESCRIPTORS + 2))
def test_descriptors_that_are_missing_are_lent_and_no_more(program: Program, free: int) -> None:
    program.limit(resource.RLIMIT_NOFILE, 3 + free, 100)
    found = list(leeway.narrow(program.pid))
    assert bool(found) == (free < leeway.DESCRIPTORS)
    for one in found:
        leeway.raised(one)
    assert int(program.ask("free()")) == max(free, leeway.DESCRIPTORS)


def test_numbers_count_and_not_descriptors(program: Program) -> None:
    """One whose number is above the limit, since that was lowered, takes none of those below."""
    program.ask("os.dup2(0, 50)")
    program.limit(resource.RLIMIT_NOFILE, 3 + leeway.DESCRIPTORS, 100)
    assert list(leeway.narrow(program.pid)) == []


def test_addresses(program: Program) -> None:
    soft = program.mapped() + 4096
    program.limit(resource.RLIMIT_AS, soft, soft + (100 << 20))
    assert program.ask("maps(1 << 20)") == "False"
    (one,) = leeway.narrow(program.pid)
    assert one.can_be_raised
    leeway.raised(one)
    assert program.ask("maps(1 << 20)") == "True"


def test_an_undo_puts_back_what_we_made_of_it_and_nothing_else(program: Program) -> None:
    program.limit(resource.RLIMIT_NOFILE, 4, 100)
    (one,) = leeway.narrow(program.pid)
    _, start = identity.identity(program.pid)
    lent = Limit(one.pid, start, one.kind, one.soft, one.needed)
    leeway.raised(one)
    (read,) = surroundings.read([program.pid])
    leeway.as_before([read], [one])
    assert {4} == {limit.soft for limit in read.limits if limit.resource == resource.RLIMIT_NOFILE}
    lent.undo()
    assert resource.prlimit(program.pid, resource.RLIMIT_NOFILE) == (4, 100)
    program.limit(resource.RLIMIT_NOFILE, 60, 70)
    lent.undo()
    assert resource.prlimit(program.pid, resource.RLIMIT_NOFILE) == (60, 70)
    Limit(one.pid, start + 1, one.kind, one.soft, 60).undo()
    assert resource.prlimit(program.pid, resource.RLIMIT_NOFILE) == (60, 70)


def test_where_the_hard_limit_does_not_allow_it_the_remedy_does(program: Program) -> None:
    """Not every root may raise a hard limit, so that one is raised before it is asked for."""
    mapped = program.mapped()
    program.limit(resource.RLIMIT_NOFILE, 4, 100)
    program.limit(resource.RLIMIT_AS, mapped, mapped + (100 << 20))
    found = [one._replace(hard=one.soft) for one in leeway.narrow(program.pid)]
    assert [one.can_be_raised for one in found] == [False, False]
    for one in map(cramped.obstacle, found):
        (reason,) = two.reasons(
            two.process(tasks=[two.task(program.pid)], root_pid=program.pid, obstacles=[one])
        )
        command = next(part for part in reason.remedy.split(", ") if part.startswith("prlimit "))
        subprocess.run(command.split(), check=True)
    assert list(leeway.narrow(program.pid)) == []


def test_refused_by_the_hard_limit_alone(program: Program) -> None:
    program.limit(resource.RLIMIT_NOFILE, 4, 5)
    (one,) = cramped.obstacles([program.pid])
    assert (one.code, one.pid, one.what) == ("cramped-descriptors", program.pid, "8")


def test_one_that_has_ended_has_none(program: Program) -> None:
    program.process.kill()
    program.process.wait()
    assert list(cramped.obstacles([program.pid])) == list[Obstacle]()
    Limit(program.pid, 1, resource.RLIMIT_NOFILE, 4, 5).undo()
