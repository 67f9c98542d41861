"""Puts this directory on the path: what tests of several rooms share is here."""

import subprocess
from collections.abc import Iterator

import pytest

from migrate.events import log


@pytest.fixture(autouse=True)
def _nothing_beside_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said or journalled in a step that does not provide for it is a failure here."""

    def fail(what: str) -> None:
        raise AssertionError(what)

    monkeypatch.setattr(log, "unexpected", fail)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours that does nothing; it is gone afterwards."""
    made = subprocess.Popen(["sleep", "1000"])
    yield made
    made.kill()
    made.wait()
