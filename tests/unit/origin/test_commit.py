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
from migrate.machine import Machine
from migrate.origin.handover import Committed, Switched
from migrate.recovery import records, settle
from migrate.states import Outcome, State


class Noted:
    """Whatever is called of it is noted."""

    def __init__(self, into: list[str], name: str = "") -> None:
        self._into, self._name = into, name

    def __getattr__(self, name: str) -> Any:
        return Noted(self._into, f"{self._name}.{name}".lstrip("."))

    def __call__(self, *_: object) -> None:
        self._into.append(self._name)


#: What is looked at, and closed, before anything is written or sent.
BEFORE = [
    "packets.forwarder.catch_up",
    "patience.check",
    "guardian.check",
    "tree.look",
    "hold.check",
    "packets.lease.keep",
    "watch.end",
    "ending.given_away",
]


@pytest.mark.parametrize("lost", [False, True])
def test_a_link_that_was_lost_before_commit_is_no_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    done: list[str] = []
    machine = Machine()
    machine.state, machine.touched = State.SWITCHED, True

    def send(_: object) -> None:
        # Given away, and written down, before the first byte may leave.
        assert (machine.state, records.read(journal.directory).state) == (State.COMMITTED, settle.COMMITTED)
        assert records.read(journal.directory).destination_pid == 77
        done.append("sent")
        if lost:
            raise TransportError("the link is lost")

    monkeypatch.setattr(place, "STATE", tmp_path)
    journal = Journal("0123456789ab", role="origin", pid=os.getpid(), other_host="there")
    others = Noted(done)
    move = SimpleNamespace(
        machine=machine,
        link=SimpleNamespace(send=send),
        account=SimpleNamespace(report=SimpleNamespace(destination_pid=77)),
        patience=others.patience,
        watch=others.watch,
    )
    ready: Any = SimpleNamespace(
        move=move,
        journal=journal,
        guardian=others.guardian,
        ending=others.ending,
        hold=others.hold,
        packets=others.packets,
        images=SimpleNamespace(directory=tmp_path),
    )
    attempt: Any = None
    found: Any = SimpleNamespace(tree=others.tree)
    stage = Switched(ready, attempt, found)
    if lost:
        with pytest.raises(TransportError):
            stage.take()
    else:
        assert isinstance(stage.take(), Committed)
    assert done == [*BEFORE, "sent"]
    assert machine.failed() is (Outcome.ROLLED_BACK if lost else Outcome.IN_DOUBT)
    assert (records.read(journal.directory).state == settle.COMMITTED) == (not lost)
