"""Connections that are forwarded go back to the host whose address they have, and are ordinary ones there again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from forwarding import OWN, Pool, Proxy
from harness.captures import Capture
from harness.migrate import Held, run_migrate
from harness.reset import reset

from migrate.lab import Lab


@pytest.fixture(params=[Pool, Proxy], ids=["a pool", "a proxy"])
def moved(lab: Lab, request: pytest.FixtureRequest) -> Iterator[tuple[Pool, int]]:
    """On the destination; its PID there."""
    reset(lab)
    made = request.param(lab, OWN["neighbour"])
    yield made, made.move().report["destination_pid"]
    made.end_forwards()
    reset(lab)


def test_there_and_back(moved: tuple[Pool, int]) -> None:
    """Nothing of the forward is left on either host."""
    pool, pid = moved
    pool.move_home(pid)


@pytest.mark.parametrize("victim", ["driver", "agent"])
def test_killed_on_the_way_home(moved: tuple[Pool, int], victim: str) -> None:
    """When it is switched: they go on where they were, forwarded as before; and once more it succeeds."""
    pool, pid = moved
    with Capture(pool.peer, pool.interface, "tcp port 6379") as capture:
        held = Held(pool.destination, "SWITCHED", *pool.words, "--max-gap", "60", pid, "origin")
        if victim == "driver":
            pool.destination.exec(["kill", "-9", str(held.driver)])
            held.killed()
        else:
            pool.origin.exec(["pkill", "-9", "-of", "migrate-agent"])
            held.go()
            assert held.end().report["outcome"] == "ROLLED_BACK"
        pool.assert_goes_on()
    assert pool.resets(capture) == [] and pool.clients() == pool.ends
    assert "10 connections of this host are forwarded" in pool.forwards("origin")
    pool.move_home(pid)


def test_what_is_not_forwarded_any_more(moved: tuple[Pool, int]) -> None:
    """It has no way home, and is refused."""
    pool, pid = moved
    pool.end_forwards()
    ran = run_migrate(pool.destination, *pool.words, pid, "origin")
    assert ran.codes >= {("switch-impossible", "origin")}
    ran.must_say("origin", "not forwarded to this host")
