"""The steps of a migration as one table: the state before and after each, what is said, done and journalled in it.

Pure. The table runs: :mod:`migrate.origin.run` takes its rows, a stage of :mod:`migrate.origin.stages` for each;
what an agent takes after what comes from it (:mod:`migrate.order`); the entries that a row lets a host journal are
the classes that undo it. The README shows it as ``python -m migrate.machine`` prints it.
"""

from __future__ import annotations

from dataclasses import dataclass

from migrate.files.entries import Copied, Directory
from migrate.journal.entry import Entry
from migrate.recovery.entries import (
    Arriving,
    AtPodman,
    AtUnit,
    Container,
    Criu,
    EndedCalls,
    Freezer,
    Images,
    Isolation,
    Joined,
    Keeper,
    Limit,
    Muted,
    OfPodman,
    OfUnit,
    OnTheWay,
    Repair,
    Routes,
    Sockets,
    Stop,
    Switch,
    Tree,
)
from migrate.states import GIVEN_AWAY, State


@dataclass(frozen=True, slots=True)
class Step:
    """One row: how to get from one state to the next. What is only made ready leaves the state as it is.

    :ivar action: the step's name, which is also the phase the user sees.
    :ivar origin, destination: what each host does, for people.
    :ivar sends: the messages (fields of Frame) that the origin sends in it, once each and in this order.
    :ivar waits: the answers that it waits for.
    :ivar meanwhile: messages that it may send too, any number of them, from the first of *sends* on.
    :ivar here: journal entries that the origin may write in it, in this order.
    :ivar there: those of the destination, in this order for each message that it is sent in this step.

    Each kind of an entry may come several times in its place, and need not come. Who says, waits for or writes what
    its row has not, or in another order, is refused in tests, and told in the log elsewhere, and done all the same.
    """

    before: State
    after: State
    action: str
    origin: str
    destination: str
    sends: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()
    meanwhile: tuple[str, ...] = ()
    here: tuple[type[Entry], ...] = ()
    there: tuple[type[Entry], ...] = ()

    @property
    def gives_away(self) -> bool:
        """Whether it closes the way back, or comes after that: nothing interrupts it."""
        return self.after in GIVEN_AWAY


STEPS = (
    Step(
        State.STARTED,
        State.STARTED,
        "connect",
        origin="ssh",
        destination="start migrate-agent",
        sends=("hello",),
        waits=("hello",),
    ),
    Step(
        State.STARTED,
        State.CHECKED,
        "check",
        origin="what the process holds, what the host can do",
        destination="what is taken, missing, different there",
        sends=("process",),
        waits=("host", "compared"),
        meanwhile=("compare",),
    ),
    Step(
        State.CHECKED,
        State.CHECKED,
        "load",
        origin="the image of a container, if it is missing there",
        destination="have podman load it",
        waits=("compared",),
        meanwhile=("copy", "compare"),
    ),
    Step(
        State.CHECKED,
        State.CHECKED,
        "prepare",
        origin="guardian, filter, CRIU, image directory",
        destination="the same; a container's runtime waits with its restore, a unit has a placeholder",
        sends=("prepare",),
        waits=("prepared", "compared"),
        meanwhile=("copy", "compare"),
        here=(Container, AtPodman, AtUnit, Images, Isolation),
        there=(Muted, OfPodman, Joined, Isolation, Images, Directory, Copied, Arriving, OfUnit),
    ),
    Step(
        State.CHECKED,
        State.CHECKED,
        "ahead",
        origin="read memory while it runs, in rounds, and what a container has written",
        destination="keep it; that is put into its place",
        waits=("compared",),
        meanwhile=("copy", "compare", "image"),
    ),
    Step(
        State.CHECKED,
        State.FROZEN,
        "freeze",
        origin="hold SYNs, drain accept queues, freeze the tree",
        destination="",
        here=(Freezer, Criu),
    ),
    Step(
        State.FROZEN,
        State.DUMPED,
        "dump",
        origin="CRIU writes images; of the pages only those that differ from what was sent ahead. Meanwhile read"
        " each socket's options",
        destination="take them as they grow",
        waits=("compared",),
        meanwhile=("compare", "copy", "image"),
        here=(Limit, Stop, EndedCalls, Keeper),
        there=(Directory, Copied),
    ),
    Step(
        State.DUMPED,
        State.ISOLATED,
        "isolate",
        origin="from here on catch what the peers send; one filter batch cuts all connections off; read every ICI",
        destination="check it, make CRIU's image of it",
        meanwhile=("connections", "image"),
        here=(Repair,),
    ),
    Step(
        State.ISOLATED,
        State.STREAMED,
        "stream",
        origin="the last images",
        destination="",
        meanwhile=("image",),
    ),
    Step(
        State.STREAMED,
        State.RESTORED,
        "restore",
        origin="what was caught",
        destination="check sizes and hashes; address added, mute; the tree is built, frozen",
        sends=("restore",),
        waits=("restored",),
        meanwhile=("gap",),
        there=(Switch, Sockets, OnTheWay, Routes, Tree, Criu, Tree),  # once more when its tasks are known
    ),
    Step(
        State.RESTORED,
        State.SWITCHED,
        "switch",
        origin="withdraw the service address",
        destination="answer for it for some seconds, renewed; announce it",
        sends=("switch",),
        waits=("switched",),
        meanwhile=("gap",),
        here=(Switch,),
    ),
    Step(
        State.SWITCHED,
        State.COMMITTED,
        "commit",
        origin="no way back from here",
        destination="",
        sends=("commit",),
        meanwhile=("gap",),
    ),
    Step(
        State.COMMITTED,
        State.ACTIVATED,
        "activate",
        origin="",
        destination="give the stack what was caught, lift the filter, let the tree run",
        waits=("activated",),
        meanwhile=("gap",),
    ),
    Step(
        State.ACTIVATED,
        State.RELEASED,
        "release",
        origin="kill the frozen tree, clean up; what still comes here",
        destination="give it to the stack, clean up",
        sends=("goodbye",),
        waits=("goodbye",),
        meanwhile=("gap",),
    ),
)

#: The step that leaves each state.
BY_STATE = {step.before: step for step in STEPS if step.before is not step.after}
