"""The child that waits for a hook: it does one and ends, with who made it if there is none."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.wait import eventually

from tcpcp.criu.hooks import Hook
from tcpcp.criu.spare import Spare


@pytest.fixture
def spare() -> Iterator[Spare]:
    made = Spare()
    yield made
    made.close()
    ended(made)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    """One without anything of the plug-in's."""
    opened = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield opened
    os.close(opened)


def ended(spare: Spare) -> bool:
    """Whether it has; nobody else waits for it here."""
    try:
        return eventually(lambda: os.waitpid(spare.pid, os.WNOHANG)[0] == spare.pid, "it ends")
    except ChildProcessError:
        return True


def hook(stage: str, directory: int) -> Hook:
    return Hook(stage, directory, os.getpid(), os.getpid(), print)


def test_its_answer_is_that_of_the_hook(spare: Spare, directory: int) -> None:
    assert not spare.used
    assert spare.run(hook("pre-resume", directory))  # nothing is to be done
    assert spare.used
    assert ended(spare)


def test_a_dump_that_cannot_be_is_refused(spare: Spare, directory: int) -> None:
    assert not spare.run(hook("post-dump", directory))  # what network-lock has put there has gone
    assert ended(spare)


def test_it_ends_with_who_made_it(spare: Spare) -> None:
    spare.close()
    assert ended(spare)


def test_whose_child_was_killed_hears_of_it(spare: Spare, directory: int) -> None:
    """And has it done otherwise."""
    os.kill(spare.pid, signal.SIGKILL)
    assert ended(spare)
    with pytest.raises(OSError, match="Broken pipe"):
        spare.run(hook("pre-resume", directory))
