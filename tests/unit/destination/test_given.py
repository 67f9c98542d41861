"""What becomes of a tree whose CRIU dies while it lets it run: whether it runs decides, not what CRIU has said."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from migrate.criu.worker import Stage
from migrate.destination.given import Activated, Committed
from migrate.errors import CriuError
from migrate.states import State


def committed(rest: Iterator[Stage], *, runs: bool) -> tuple[Committed, Mock]:
    """It, with a CRIU that says *rest*; and all that is around it."""
    around = Mock()
    around.tree.built.any_runs.return_value = runs
    tree: Any = SimpleNamespace(built=around.tree.built, numbers={7: 7}, rest=rest, icis=(), listening=())
    ready: Any = SimpleNamespace(root=7, worker=around.worker, gate=around.gate, trail=around.trail)
    return Committed(ready, tree, {}), around


def dies() -> Iterator[Stage]:
    raise CriuError("CRIU was killed")
    yield Stage("pre-resume", None)


def test_what_it_has_let_go_stays() -> None:
    state, around = committed(dies(), runs=True)
    activated = state.activate()
    assert isinstance(activated, Activated)
    # Before it is looked at: what CRIU still holds would run later.
    around.worker.close.assert_called_once_with(grace_s=0)
    around.trail.journal.state.assert_called_once_with(State.ACTIVATED.value, destination_pid=7)
    assert activated._problems == ["CRIU was killed there while it let the process run, which it does"]


def test_what_waits_for_it_is_given_back() -> None:
    state, around = committed(dies(), runs=False)
    with pytest.raises(CriuError, match="CRIU was killed"):
        state.activate()
    around.trail.journal.state.assert_not_called()


def test_one_that_says_so_is_believed() -> None:
    state, around = committed(iter([Stage("pre-resume", None)]), runs=False)
    assert isinstance(state.activate(), Activated)
    around.worker.close.assert_not_called()
