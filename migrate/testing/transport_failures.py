"""What every :class:`migrate.transport.Transport` must say of an agent, or a host, that fails."""

from __future__ import annotations

from collections.abc import Callable

from migrate.errors import MigrateError, TransportError
from migrate.testing.leftovers import Before
from migrate.testing.transport_case import Case, until_end


def nothing_is_explained_while_it_runs(case: Case) -> None:
    """There is nothing to explain."""
    with case.opened("cat") as stream:
        stream.write(b"x")
        assert stream.read(1) == b"x"
        assert stream.explain() is None


def an_agent_that_fails_is_explained(case: Case) -> None:
    """By its status and its last words, of which there are never too many."""
    text = "i=0; while [ $i -lt 20000 ]; do echo line $i >&2; i=$((i+1)); done; exit 3"
    error = _explained(case, case.program(text))
    assert "ended with status 3" in str(error) and "line 19999" in str(error), error
    assert 0 < len(error.problem.details) <= 100


def an_agent_that_is_not_there_is_explained(case: Case) -> None:
    """Its name stays one word, whatever is in it."""
    error = _explained(case, "no such; exit 5")
    assert "there is no agent" in str(error) and "no such; exit 5" in str(error), error
    assert "--agent" in error.problem.hint


def an_agent_that_is_killed_is_explained(case: Case) -> None:
    """It has no status."""
    assert "was killed" in str(_explained(case, case.program("kill -9 $$")))


def a_host_that_does_not_answer_is_explained(case: Case) -> None:
    """At once or later, with what to do."""
    before = Before()
    try:
        stream = case.transport.open(case.nowhere)
    except MigrateError as error:
        _typed(error)
    else:
        assert until_end(stream) == b""
        _typed(stream.explain())
        stream.close()
    before.check()


CHECKS: tuple[Callable[[Case], None], ...] = (
    nothing_is_explained_while_it_runs,
    an_agent_that_fails_is_explained,
    an_agent_that_is_not_there_is_explained,
    an_agent_that_is_killed_is_explained,
    a_host_that_does_not_answer_is_explained,
)


def _explained(case: Case, agent: str) -> MigrateError:
    with case.opened(agent) as stream:
        assert until_end(stream) == b""
        return _typed(stream.explain())


def _typed(error: MigrateError | None) -> MigrateError:
    """It is one that a user can do something about."""
    assert isinstance(error, TransportError), error
    assert error.problem.hint, error
    return error
