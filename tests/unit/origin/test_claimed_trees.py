"""A tree is claimed as a whole: of two migrations that would have a process in common one is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate import place
from migrate.errors import Refused
from migrate.journal.journal import Journal
from migrate.origin import claim

ID = "0123456789ab"
#: Says its child's number, and that of one more for each line that it reads.
PARENT = (
    "import subprocess, sys\n"
    "while True:\n print(subprocess.Popen(['sleep', '100'], stdout=2).pid, flush=True)\n if not input(): break"
)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "STATE", tmp_path / "migrate")


class Family:
    """A process with children."""

    def __init__(self) -> None:
        self.parent = subprocess.Popen(
            [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
        )
        self.child = self._said()

    def _said(self) -> int:
        assert self.parent.stdout is not None
        return int(self.parent.stdout.readline())

    def fork(self) -> int:
        assert self.parent.stdin is not None
        self.parent.stdin.write(b"again\n")
        self.parent.stdin.flush()
        return self._said()

    def close(self) -> None:
        os.killpg(self.parent.pid, 9)
        self.parent.communicate()


@pytest.fixture
def family() -> Iterator[Family]:
    made = Family()
    yield made
    made.close()


def refusal(pid: int) -> str:
    with pytest.raises(Refused) as caught, claim.of_tree(pid):
        pass
    [reason] = caught.value.reasons
    assert reason.code == "busy" and reason.remedy
    return reason.text


def test_a_part_of_a_tree_that_is_moved(family: Family) -> None:
    with claim.of_tree(family.parent.pid):
        for child in family.child, family.fork():
            said = refusal(child)
            assert f"is moving process {family.parent.pid}, of whose tree this one is a part" in said
            assert said.endswith(f": PID {os.getpid()}")
    with claim.of_tree(family.child):
        pass


def test_a_tree_of_which_a_part_is_moved(family: Family) -> None:
    with claim.of_tree(family.child):
        assert "another migrate is moving a process of this tree" in refusal(family.parent.pid)
        with claim.of_tree(family.fork()):  # beside it
            pass


def test_the_other_one_is_named(family: Family) -> None:
    written = Journal(ID, role="origin", pid=family.parent.pid, other_host="there")
    with claim.of_tree(family.parent.pid):
        for pid in family.parent.pid, family.child:
            assert f"migration {ID} of process {family.parent.pid} to there" in refusal(pid)
    written.remove()


def test_what_is_refused_claims_nothing(family: Family) -> None:
    with claim.of_tree(family.parent.pid):
        refusal(family.child)
        assert refusal(family.parent.pid).startswith("another migrate is moving this process")
    with claim.of_tree(family.parent.pid):
        pass


@pytest.mark.parametrize("how", ["-x", "-s"])
def test_a_lock_of_somebody_else_is_no_claim(family: Family, how: str) -> None:
    """Everybody may lock a directory of /proc: nobody keeps root from moving a process by that."""
    command = ["setpriv", "--reuid=1234", "--clear-groups", "flock", how, f"/proc/{family.parent.pid}"]
    held = subprocess.Popen(
        [*command, "sh", "-c", "echo held; sleep 100"], stdout=subprocess.PIPE, process_group=0
    )
    assert held.stdout is not None and held.stdout.readline() == b"held\n"
    with claim.of_tree(family.child), claim.of_tree(family.fork()):
        pass
    with claim.of_tree(family.parent.pid):
        pass
    os.killpg(held.pid, 9)
    held.communicate()


def test_who_has_ended_claims_nothing() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    with claim.of_tree(ended.pid):
        pass
    assert ended.pid in claim.overlapping(ended.pid)


def test_which_migrations_concern_it(family: Family) -> None:
    assert {os.getpid(), family.parent.pid, family.child} <= claim.overlapping(family.parent.pid)
    beside = family.fork()
    assert beside not in claim.overlapping(family.child)
    assert beside in claim.overlapping(os.getpid())
