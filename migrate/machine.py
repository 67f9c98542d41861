"""The states of a migration as one table: each step, what the two hosts do in it, and what undoes it.

Pure. :mod:`migrate.origin.run` carries the actions out; :mod:`migrate.recovery.undo` has a function for every
name in an ``undo`` column. The diagram in the README is printed from this table (``python -m migrate.machine``).

Before COMMIT is sent every step that was begun is undone in reverse order and the process goes on where
it was. From there on nothing may make the origin's copy run again by itself: what cannot be finished is
IN_DOUBT, until the destination has said that it runs there, or that it does not and will not.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class State(enum.Enum):
    """Where a migration is; the last four are ends."""

    CHECKED = "CHECKED"
    FROZEN = "FROZEN"
    DUMPED = "DUMPED"
    ISOLATED = "ISOLATED"
    STREAMED = "STREAMED"
    RESTORED = "RESTORED"
    SWITCHED = "SWITCHED"
    COMMITTED = "COMMITTED"
    ACTIVATED = "ACTIVATED"
    RELEASED = "RELEASED"


class Outcome(enum.Enum):
    """Where the process is in the end. No failure makes ENDED: it is what is seen when all is over."""

    UNTOUCHED = "UNTOUCHED"
    ROLLED_BACK = "ROLLED_BACK"
    IN_DOUBT = "IN_DOUBT"
    MOVED = "MOVED"
    ENDED = "ENDED"


@dataclass(frozen=True, slots=True)
class Step:
    """One row: how to get from one state to the next.

    :ivar action: name of the driver's method, which is also the phase the user sees.
    :ivar undo: journal entries this step may write, in the order it writes them.
    """

    before: State
    after: State
    action: str
    origin: str
    destination: str
    undo: tuple[str, ...] = ()


STEPS = (
    Step(
        State.CHECKED,
        State.FROZEN,
        "freeze",
        "drain the accept queues, freeze the tree",
        "make ready: directory, filter, CRIU",
        ("isolation", "images", "freezer", "criu"),
    ),
    Step(
        State.FROZEN, State.DUMPED, "dump", "write memory and the rest", "receive images", ("stop", "keeper")
    ),
    Step(
        State.DUMPED,
        State.ISOLATED,
        "isolate",
        "isolate and get all connections",
        "receive images",
        ("repair",),
    ),
    Step(State.ISOLATED, State.STREAMED, "stream", "send the last images", "check them"),
    Step(State.STREAMED, State.RESTORED, "restore", "wait", "add the mute address, build the tree"),
    Step(
        State.RESTORED,
        State.SWITCHED,
        "switch",
        "withdraw the address",
        "announce the address",
        ("switch",),
    ),
    Step(State.SWITCHED, State.COMMITTED, "commit", "give the process away", "take it"),
    Step(State.COMMITTED, State.ACTIVATED, "activate", "wait", "let packets in and the tree run"),
    Step(State.ACTIVATED, State.RELEASED, "release", "kill the frozen tree, clean up", "clean up"),
)

BY_STATE = {step.before: step for step in STEPS}


#: From here on the origin's copy never runs again by itself, and nothing may be interrupted.
GIVEN_AWAY = frozenset({State.COMMITTED, State.ACTIVATED, State.RELEASED})


class Machine:
    """Where one migration is. ``state`` changes only by :meth:`done`, :meth:`give_away` and
    :meth:`take_back`."""

    def __init__(self) -> None:
        self.state = State.CHECKED
        self.touched = False

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
        return step

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


def diagram() -> str:
    """The table as text, for the README."""
    rows = [("state", "origin", "destination", "on failure")]
    machine = Machine()
    for step in STEPS:
        machine.state, machine.touched = step.before, True
        if machine.begin().action == "commit":
            machine.give_away()
        rows.append((step.after.value, step.origin, step.destination, machine.failed().value))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    print(diagram())
