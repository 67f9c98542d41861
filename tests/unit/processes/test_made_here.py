"""What a rollback on the destination kills: only what its own CRIU made, whatever numbers others have."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from migrate.processes import identity, made_here
from migrate.recovery.entries import Tree

MARK = "MIGRATE_ID=feedfeedfeed"
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program that sleeps, with ``Popen``'s arguments."""
    made: list[subprocess.Popen[bytes]] = []

    def begin(**more: Any) -> subprocess.Popen[bytes]:
        made.append(subprocess.Popen(["sleep", "1000"], **more))
        # Its environment can be read a moment after exec() has closed what Popen waits for.
        while not Path(f"/proc/{made[-1].pid}/environ").read_bytes():
            time.sleep(0.001)
        return made[-1]

    yield begin
    for one in made:
        one.kill()
        one.wait()


def entry(directory: Path, *tasks: tuple[int, int]) -> Tree:
    return Tree(tasks, MARK, str(directory))


def test_who_has_a_number_of_the_tree_and_is_younger_is_a_stranger(tmp_path: Path, start: Start) -> None:
    """The journal of the version before had these two, and nothing else, for it."""
    stranger = start()
    of_before = {"pids": [stranger.pid], "since": 0}
    assert Tree.read(entry(tmp_path).line() | of_before).undo() == "restored tasks killed"
    assert stranger.poll() is None


def test_what_was_built_is_killed_unless_its_number_is_another_ones(tmp_path: Path, start: Start) -> None:
    built, other = (identity.identity(start().pid) for _ in range(2))
    entry(tmp_path, built, (other[0], other[1] - 1)).undo()
    assert not identity.alive(built)
    assert identity.alive(other)


def test_what_bears_our_mark_is_killed(tmp_path: Path, start: Start) -> None:
    helper = identity.identity(start(env={**os.environ, **dict([MARK.split("=")])}).pid)
    entry(tmp_path).undo()
    assert not identity.alive(helper)


def test_what_writes_to_our_images_is_ours_and_who_reads_them_is_not(tmp_path: Path, start: Start) -> None:
    log = tmp_path / "restore.log"
    with log.open("wb") as file:
        task = identity.identity(start(pass_fds=[file.fileno()]).pid)
    with log.open("rb") as file:
        engineer = identity.identity(start(pass_fds=[file.fileno()]).pid)
    assert made_here.processes_of((), MARK, str(tmp_path)) == [task]
    entry(tmp_path).undo()
    assert (identity.alive(task), identity.alive(engineer)) == (False, True)
