"""The plans of chaos: a seed repeats its faults, and each fault and each moment comes up."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).resolve().parent.parent / "chaos"


@pytest.fixture
def chaos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(CHAOS), *sys.path])


def plans(count: int) -> list[object]:
    import faults
    import plan

    return [plan.draw(seed, faults.drawn_from()) for seed in range(count)]


def test_a_seed_repeats_its_run(chaos: None) -> None:
    assert plans(100) == plans(100)
    assert len(set(map(str, plans(100)))) == 100


def test_everything_is_drawn(chaos: None) -> None:
    import faults
    import plan

    drawn = plans(3000)
    blows = [blow for one in drawn for blow in one.blows]
    assert {blow.fault for blow in blows} == set(faults.FAULTS)
    assert {blow.how for blow in blows if blow.fault == "kill"} == set(faults.FAULTS["kill"].hows)
    assert {blow.when.phase for blow in blows} == {*plan.PHASES, plan.HELD}
    assert {one.stop_at for one in drawn} == {"", *plan.STATES}
    assert {len(one.blows) for one in drawn} == {1, 2}


def test_a_driver_that_ends_of_the_first_signal_was_hit(chaos: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not there for the second one; where nobody was there for the first the fault was missed."""
    import faults

    there, sent = ["driver"], []

    class World:
        def victims(self, who: str) -> list[str]:
            if not there:
                raise faults.NoVictim(who)
            return there

        def sleep(self, seconds: float) -> None:
            there.clear()

    monkeypatch.setattr(faults.hosts, "send", lambda who, number: sent.append(number.name))
    faults.ask_to_end(World(), "INT TERM")
    assert sent == ["SIGINT"]
    with pytest.raises(faults.NoVictim):
        faults.ask_to_end(World(), "INT TERM")
