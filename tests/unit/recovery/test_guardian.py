"""The guardian's own life: it ends in order when nothing is left to guard, whether it was told of a gap or not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from migrate import place
from migrate.journal.journal import Journal
from migrate.recovery.guardian import Guardian


@pytest.mark.parametrize("gap_s", [None, 0.0, 60.0], ids=["no gap", "a gap that is over", "a gap"])
def test_it_ends_with_the_journal(
    gap_s: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "STATE", tmp_path / "migrate")
    journal = Journal(place.new_id(), role="destination", pid=os.getpid(), other_host="there")
    try:
        guardian = Guardian(journal.directory)
        guardian.wait_ready()
        if gap_s is not None:
            guardian.expect_end(time.monotonic() + gap_s)
    finally:
        journal.remove()
    assert guardian._process.wait(timeout=20) == 0
