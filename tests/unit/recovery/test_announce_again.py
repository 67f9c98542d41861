"""After a rollback the addresses are announced until the destination has confirmed that it has them no more."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from migrate import limits, switch
from migrate.errors import TransportError
from migrate.pb import session_pb2 as pb
from migrate.recovery import doubt, guardian
from migrate.recovery.entries import Switch
from migrate.recovery.records import Record

RECORD = Record("0123456789ab", role="origin", entries=[Switch({})])


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the addresses were announced, seconds."""
    clock, said = Clock(), list[float]()
    monkeypatch.setattr(guardian, "time", clock)
    one = SimpleNamespace(remind=lambda: said.append(clock.now))
    monkeypatch.setattr(switch, "from_details", lambda details: one)
    return said


def answers(monkeypatch: pytest.MonkeyPatch, *given: int | None) -> None:
    """What the destination says, the last again and again; None: it cannot be asked."""
    left = list(given)

    def ask(record: Record, **_: object) -> pb.Answer:
        where = left.pop(0) if len(left) > 1 else left[0]
        if where is None:
            raise TransportError("it stands still")
        return pb.Answer(where=where)  # type: ignore[arg-type]

    monkeypatch.setattr(doubt, "ask", ask)


def test_confirmed_when_the_lease_has_ended(said: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, pb.Answer.NOT_HERE)
    guardian.announce_again(RECORD)
    assert said == list(guardian.AGAIN_S)


def test_a_destination_that_stands_still(said: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, None, pb.Answer.UNDER_WAY, pb.Answer.NOT_HERE)
    guardian.announce_again(RECORD)
    assert said == [*guardian.AGAIN_S, 24, 34]


def test_not_for_ever(said: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, None)
    guardian.announce_again(RECORD)
    assert limits.UNCONFIRMED_S - 20 < said[-1] < limits.UNCONFIRMED_S + 20


def test_addresses_that_were_not_switched(said: list[float]) -> None:
    guardian.announce_again(Record("0123456789ab", role="origin"))
    assert said == []
