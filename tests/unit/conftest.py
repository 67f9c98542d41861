"""Puts this directory on the path: what tests of several rooms share is here."""

import subprocess
from collections.abc import Iterator

import pytest


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours that does nothing; it is gone afterwards."""
    made = subprocess.Popen(["sleep", "1000"])
    yield made
    made.kill()
    made.wait()
