"""The moment in which the way back is closed: it stays open when COMMIT was surely not sent."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from migrate import place
from migrate.errors import TransportError
from migrate.journal.journal import Journal
from migrate.machine import Machine, Outcome, State
from migrate.origin.run import Driver
from migrate.recovery import settle


def nothing(*_: Any, **__: Any) -> None:
    pass


@pytest.mark.parametrize("lost", [False, True])
def test_a_link_that_was_lost_before_commit_is_no_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    def send(_: object) -> None:
        if lost:
            raise TransportError("the link is lost")

    monkeypatch.setattr(place, "STATE", tmp_path)
    driver: Any = Driver.__new__(Driver)
    driver._journal = Journal("0123456789ab", role="origin", pid=os.getpid(), other_host="there")
    driver._machine = Machine()
    driver._machine.state, driver._machine.touched = State.SWITCHED, True
    driver._forwarder = SimpleNamespace(catch_up=nothing)
    driver._frozen, driver._images = SimpleNamespace(look=nothing), tmp_path
    driver._hold = SimpleNamespace(check=nothing)
    driver._lease = SimpleNamespace(keep=nothing)
    driver._patience = driver._guardian = SimpleNamespace(check=nothing)
    driver._watch = SimpleNamespace(end=nothing)
    driver._report = SimpleNamespace(destination_pid=77)
    driver._link = SimpleNamespace(send=send)
    if lost:
        with pytest.raises(TransportError):
            driver.commit()
    else:
        driver.commit()
    assert driver._machine.failed() is (Outcome.ROLLED_BACK if lost else Outcome.IN_DOUBT)
    assert (driver._journal.read().state == settle.COMMITTED) == (not lost)
