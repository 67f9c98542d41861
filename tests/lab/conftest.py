"""What the tests on real hosts share."""

import os
from collections.abc import Iterator

import pytest

from migrate.lab import Lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A lab of this test session's own, up."""
    with Lab(f"test-{os.getpid()}") as lab:
        yield lab
