"""Puts this directory on the path, what is here is used by tests of all kinds; and keeps logs off this machine."""

import os
from collections.abc import Iterator
from pathlib import Path

import longest_first
import pytest

from migrate import place
from migrate.processes import freezer
from migrate.recovery import unclaimed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several workers share the files, those that take long come first."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items[:] = [items[number] for number in longest_first.in_order([item.path for item in items])]


@pytest.fixture(autouse=True, scope="session")
def nothing_of_this_machine_is_left() -> Iterator[None]:
    """A test of parts, whose journals are elsewhere, would take images of migrations on this machine for left."""
    before = unclaimed.remove, freezer.all_named
    unclaimed.remove, freezer.all_named = list, lambda _: []
    yield
    unclaimed.remove, freezer.all_named = before


@pytest.fixture(autouse=True, scope="session")
def no_log_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a test of parts tells goes to a directory of the tests; hosts of a lab have one of their own each."""
    before = place.LOGS, place.SYSLOG
    place.LOGS = tmp_path_factory.mktemp("log") / "migrate"
    place.SYSLOG = Path("/nonexistent/log")
    yield
    place.LOGS, place.SYSLOG = before
