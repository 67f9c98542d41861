"""What the tests on real hosts share."""

import os
from collections.abc import Iterator

import judge
import pytest
from bad_input_bench import Bench

from migrate.lab import Lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A lab of this test session's own, up."""
    with Lab(f"test-{os.getpid()}") as lab:
        yield lab


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """A lab of the tests of bad input, which break it in many ways."""
    with Lab(f"bad-{os.getpid()}") as lab:
        yield Bench(lab)


@pytest.fixture
def clean(lab: Lab) -> Iterator[None]:
    """The lab as it came up, before and after; what a migration leaves behind is an error."""
    judge.reset(lab)
    yield
    judge.assert_nothing_left(lab)
    judge.reset(lab)
