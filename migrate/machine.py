"""Where one migration is in the table of :mod:`migrate.steps`, and what a failure makes of it. Pure.

Before COMMIT is sent every step that was begun is undone in reverse order and the process goes on where
it was. From there on nothing may make the origin's copy run again by itself: what cannot be finished is
IN_DOUBT, until the destination has said that it runs there, or that it does not and will not.

``python -m migrate.machine`` prints the table for people, as docs/migration.md shows it.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Sequence

from migrate.column import Column
from migrate.journal.entry import Entry
from migrate.states import GIVEN_AWAY, Outcome, State
from migrate.steps import BY_STATE, STEPS, Step

#: Columns of text are at most this wide.
_WIDTH = 42
_NAMED = {step.action: step for step in STEPS}
#: Said, and waited for, in whichever step it fails.
_GOES, _GONE = ("abort", "goodbye"), "aborted"
_ONCE, _ANY, _BACK = "-->", "==>", "<--"


class Row:
    """The row of *step* while it is taken: what the origin may say, wait for and journal in it, in that order."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self._to_say = list(step.sends)
        self._answers, self._entries = Column(step.waits), Column(step.here)
        self._earlier = STEPS[max(STEPS.index(step) - 1, 0)].meanwhile

    def may_say(self, kind: str) -> bool:
        """Whether the origin sends a message of *kind* now, and then it is said; that it goes may be said always.

        What may be said meanwhile belongs to the step before until the first message of this one.
        """
        if self._to_say[:1] == [kind]:
            del self._to_say[0]
            return True
        begun = len(self._to_say) < len(self.step.sends) or not self.step.sends
        return kind in _GOES or kind in (self.step.meanwhile if begun else self._earlier)

    def may_wait(self, kind: str) -> bool:
        """Whether it waits for an answer of *kind* now."""
        return kind == _GONE or self._answers.may(kind)

    def may_write(self, kind: type[Entry]) -> bool:
        """Whether it journals an entry of *kind* now."""
        return self._entries.may(kind)


class Machine:
    """Where one migration is: its state once it has passed its checks, and the row of the table before that, too.

    ``state`` changes only by :meth:`done`, :meth:`give_away` and :meth:`take_back`.

    :ivar row: that which is being taken; after a failure the one that failed.
    """

    def __init__(self) -> None:
        self.state = State.CHECKED
        self.touched = False
        self.row = Row(STEPS[0])

    @property
    def step(self) -> Step | None:
        """The step to take next; None when all are taken."""
        return BY_STATE.get(self.state)

    @property
    def given_away(self) -> bool:
        """Whether the way back is closed."""
        return self.state in GIVEN_AWAY

    def begin(self) -> Step:
        """Begin the next step: from now on a failure has something to undo."""
        step = self.step
        if step is None:
            raise ValueError("no step is left")
        self.touched = True
        self.row = Row(step)
        return step

    def make_ready(self, action: str) -> None:
        """Begin a step of the table that leaves the state as it is."""
        self.row = Row(_NAMED[action])

    def again(self) -> None:
        """Begin the row under way once more: what it was to do did not come about."""
        self.row = Row(self.row.step)

    def give_away(self) -> None:
        """Close the way back, within the step "commit" and before its message is sent.

        The message may arrive although sending it fails.
        """
        if self.state is not State.SWITCHED:
            raise ValueError(f"nothing to give away in state {self.state.value}")
        self.state = State.COMMITTED

    def take_back(self) -> None:
        """Open the way back again: the message that gives the process away was surely not sent, not even in part,
        or the destination has said that it does not run there, and will not."""
        if self.state is not State.COMMITTED:
            raise ValueError(f"nothing to take back in state {self.state.value}")
        self.state = State.SWITCHED

    def done(self, step: Step) -> None:
        """The step *step* has been taken."""
        if self.state is not (step.after if step.action == "commit" else step.before):
            raise ValueError(f"{step.action} does not belong to state {self.state.value}")
        self.state = step.after

    def failed(self) -> Outcome:
        """What a failure now, of whatever kind, makes of the migration."""
        if not self.touched:
            return Outcome.UNTOUCHED
        if self.state in (State.ACTIVATED, State.RELEASED):
            return Outcome.MOVED
        return Outcome.IN_DOUBT if self.state is State.COMMITTED else Outcome.ROLLED_BACK


# --- for people ---


def drawn() -> str:
    """What each host does in each step, and the messages between them: ``==>`` any number of times."""
    rows = [("", "origin", "", "destination")]
    for step in STEPS:
        said = _said(step)
        cells = (textwrap.wrap(step.origin, _WIDTH), said, textwrap.wrap(step.destination, _WIDTH))
        lines = itertools.zip_longest([step.action], *cells, fillvalue="")
        rows += [(name, here, between, there) for name, here, between, there in lines]
    return _columns(rows)


def _said(step: Step) -> list[str]:
    once = [f"{_ONCE} {kind}" for kind in step.sends]
    often = [f"{_ANY} {kind}" for kind in step.meanwhile]
    return [*once, *often, *(f"{_BACK} {kind}" for kind in step.waits)]


def listed() -> str:
    """The state after each step, what may be in the journals then, and what a failure in the step comes to."""
    rows = [("step", "then", "journal of the origin", "journal of the destination", "on failure")]
    for step in STEPS:
        here, there = (
            ", ".join(dict.fromkeys(one.word for one in column)) for column in (step.here, step.there)
        )
        rows.append((step.action, step.after.value, here, there, _outcome(step)))
    return _columns(rows)


def _outcome(step: Step) -> str:
    """What a failure at the end of *step* makes of the migration."""
    machine = Machine()
    machine.state = step.before
    machine.touched = STEPS.index(step) >= STEPS.index(BY_STATE[State.CHECKED])
    if step.action == "commit":
        machine.give_away()
    return machine.failed().value


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: Iterable[str], widths: Iterable[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def whole() -> str:
    """Both, as ``python -m migrate.machine`` prints them."""
    return f"{drawn()}\n\n{listed()}"


if __name__ == "__main__":
    print(whole())
