"""One migration on the origin, in whatever state: what was asked, who is told, what must be given back."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

from migrate.link.link import Link
from migrate.machine import Machine
from migrate.origin.account import Account
from migrate.origin.early import EarlyEnding, Ends
from migrate.origin.frozen import NoneKilled
from migrate.origin.observed import Seen
from migrate.origin.patience import Patience
from migrate.origin.plan import Plan
from migrate.origin.session import Session
from migrate.processes.chosen import Subject
from migrate.request import Request
from migrate.watch import Watch


@dataclass(frozen=True, slots=True)
class Held:
    """What we hold of the tree. Given back it can be undone like that of a driver that died.

    :ivar sockets: those that were borrowed from it; the last to be given back.
    :ivar freeze: a CRIU, all that belongs to it, and the freeze: closed alone, the tree runs on.
    :ivar kept: who reads the images, and what keeps the tree still beside CRIU; the first.
    """

    sockets: ExitStack = field(default_factory=ExitStack)
    freeze: ExitStack = field(default_factory=ExitStack)
    kept: ExitStack = field(default_factory=ExitStack)

    def let_go(self) -> None:
        """Give all of it back. May be called twice."""
        with self.sockets, self.freeze, self.kept:
            pass


@dataclass(frozen=True, slots=True)
class Move:
    """One migration that has passed its checks.

    :ivar plan: what the checks found out and the steps need.
    :ivar subject: the process that was checked, and no other.
    :ivar alive: looks at the tree while it is frozen.
    :ivar seen: what is known of the tree, here and there.
    :ivar ends: how it ends if it fails now.
    :ivar held: given back before anything is undone, and never in doubt.
    :ivar ours: what is given back at the very end, however it ends: threads, children, packet sockets.
    """

    request: Request
    subject: Subject
    session: Session
    plan: Plan
    account: Account
    machine: Machine
    patience: Patience
    alive: NoneKilled
    seen: Seen
    ends: Ends
    held: Held
    ours: ExitStack

    @classmethod
    def begin(cls, request: Request, subject: Subject, session: Session, plan: Plan) -> Move:
        """Of what was checked in *session*. Whoever waits from now on looks at all that may end it."""
        machine, held, ours = session.machine, Held(), ExitStack()
        alive, patience = NoneKilled(machine), Patience(request.timeout_s, request.max_gap_s)
        for look in (alive, patience.check, session.link.check):
            session.watch.also(look)
        early = EarlyEnding(session.account.report, session.link, machine, held.let_go)
        return cls(
            request,
            subject,
            session,
            plan,
            session.account,
            machine,
            patience,
            alive,
            Seen(),
            Ends(early),
            held,
            ours,
        )

    @property
    def link(self) -> Link:
        """To the destination."""
        return self.session.link

    @property
    def watch(self) -> Watch:
        """What everybody who waits looks at."""
        return self.session.watch

    @property
    def migration_id(self) -> str:
        """Its name on both hosts."""
        return self.session.migration_id

    @property
    def timeout_s(self) -> float:
        """How long a step may take as a whole, and an answer."""
        return self.request.timeout_s
