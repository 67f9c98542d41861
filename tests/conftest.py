"""Puts this directory on the path, what is here is used by tests of all kinds; and keeps logs off this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate import place


@pytest.fixture(autouse=True, scope="session")
def no_log_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a test of parts tells goes to a directory of the tests; hosts of a lab have one of their own each."""
    before = place.LOGS, place.SYSLOG
    place.LOGS = tmp_path_factory.mktemp("log") / "migrate"
    place.SYSLOG = Path("/nonexistent/log")
    yield
    place.LOGS, place.SYSLOG = before
