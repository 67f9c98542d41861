"""Where the process is when something goes wrong is found out, not guessed: from the host that knows it.

A stranger on the destination, an agent that stands still, a link that is lost in the worst moment.
"""

from __future__ import annotations

import pytest
from kills import Bench, Migration, View
from kills_outcomes import assert_goes_on_at_origin


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    return loaded.ready()


# --- somebody else's process -----------------------------------------------------------------------------


def test_a_stranger_with_a_number_of_the_tree_survives_the_rollback(bench: Bench) -> None:
    """It got the number after the check, and is younger than anything of this migration."""
    migration = Migration(bench, "DUMPED")
    stranger = bench.spawn_as(bench.destination, bench.pid, ["sleep", "4242"])
    migration.go()
    status, report = migration.end()
    assert (status, report["outcome"]) == (4, "ROLLED_BACK")
    assert "sleep 4242" in View(bench.destination).processes[stranger][1]
    bench.destination.exec(["kill", "-9", str(stranger)])
    assert_goes_on_at_origin(bench)
