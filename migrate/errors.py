"""Every error that `migrate` raises on purpose; anything else that escapes is a bug (exit status 70).

An error says what failed, and what to do. In which phase and on which host is added where a step is left
(:mod:`migrate.problems`); what state the process is in, by the driver, which alone knows it (see
:class:`migrate.report.report.Report`). What is told of it is a :class:`Problem`, on the way to the other host too.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from migrate.pb.session_pb2 import PhaseTime

#: The hint when images do not fit into a host's memory file systems (:mod:`migrate.place`).
MAKE_ROOM = "Remove files from /dev/shm and /run there, or enlarge one: mount -o remount,size=... /dev/shm"


class Exit(enum.IntEnum):
    """Exit statuses: where the process is now."""

    MOVED = 0
    USAGE = 2
    UNTOUCHED = 3
    ROLLED_BACK = 4
    IN_DOUBT = 5
    ENDED = 6
    BUG = 70


#: The same in the words of the help and of the manual.
MEANS: dict[int, str] = {
    Exit.MOVED: "moved (or the check passed)",
    Exit.USAGE: "wrong arguments",
    Exit.UNTOUCHED: "nothing was touched",
    Exit.ROLLED_BACK: "rolled back: the process runs on here",
    Exit.IN_DOUBT: "in doubt: do what the report says",
    Exit.ENDED: "it has ended",
    Exit.BUG: "a bug",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is told of an error, to the other host and to the user, as text, JSON and drawing.

    :ivar kind: its name in ``--json``: that of the error's class.
    :ivar text: what failed.
    :ivar hint: what the user can do about it; a sentence, or "".
    :ivar details: lines that help an engineer, e.g. the first errors of CRIU's log.
    :ivar phase: what was being done, e.g. ``"connect"``, ``"check"``, ``"dump"``; "" while that is not known.
    :ivar host: where it failed: ``"origin"`` or ``"destination"``; likewise.
    :ivar bug: whether it is one of this program's.
    """

    kind: str
    text: str
    hint: str = ""
    details: tuple[str, ...] = ()
    phase: str = ""
    host: str = ""
    bug: bool = False

    def at(self, phase: str, host: str) -> Problem:
        """It, with *phase* and *host* where these are not known yet."""
        return dataclasses.replace(self, phase=self.phase or phase, host=self.host or host)


class MigrateError(Exception):
    """Something failed.

    :cvar of_the_other: it is about the other host, as seen from here.
    :cvar usual_hint: of one of its kind that is raised without a hint, and not for a refusal of the system that has
        a remedy of its own; "" where nothing is to be done, None: :data:`migrate.problems.LOOK`.
    :ivar problem: what is told of it, as far as it is known.
    :ivar phases: what the other host, which told of the error, had done before.
    :ivar left: what the other host, which told of the error, could not undo of its part.
    :ivar not_there: the destination, which told of the error, said that the process does not run there and will
        not: whatever it had built of it is gone.
    """

    of_the_other: ClassVar[bool] = False
    usual_hint: ClassVar[str | None] = None

    def __init__(self, text: str, *, hint: str = "", details: Iterable[str] = ()) -> None:
        super().__init__(text)
        self.problem = Problem(self.kind, text, hint, tuple(details))
        self.phases: Sequence[PhaseTime] = ()
        self.left: Sequence[str] = ()
        self.not_there = False

    @property
    def kind(self) -> str:
        """The error's name in ``--json``: the class name."""
        return type(self).__name__

    def stamp(self, phase: str, host: str) -> None:
        """Say where it was, unless that was said before; for who runs a step."""
        self.problem = self.problem.at(phase, host)

    def suggest(self, hint: str) -> None:
        """Say what to do, unless that was said before; for who runs a step."""
        if not self.problem.hint:
            self.problem = dataclasses.replace(self.problem, hint=hint)

    def add_details(self, lines: Iterable[str]) -> None:
        """Add *lines* for an engineer, for who knows more of it."""
        self.problem = dataclasses.replace(self.problem, details=(*self.problem.details, *lines))

    def told(self) -> Problem:
        """What is told of it, its notes (failed undos) among the details."""
        notes = vars(self).get("__notes__", ())
        return dataclasses.replace(self.problem, details=(*self.problem.details, *notes))


class UsageError(MigrateError):
    """The arguments make no sense."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a process cannot be moved.

    :ivar code: stable name for programs, e.g. ``"port-taken"``.
    :ivar role: the host it is about: ``"origin"`` or ``"destination"``.
    :ivar text: what is wrong; a sentence without the host.
    :ivar remedy: what the user can do; a sentence.
    :ivar pids: the processes that it is about, where it names any: all, of which the text may only count some.
    """

    code: str
    role: str
    text: str
    remedy: str
    pids: tuple[int, ...] = ()


class Refused(MigrateError):
    """The checks found reasons not to begin; nothing was touched.

    :ivar reasons: all of them, at least one; each has its remedy.
    """

    usual_hint = ""

    def __init__(self, reasons: list[Reason]) -> None:
        noun = "reason" if len(reasons) == 1 else "reasons"
        super().__init__(f"{len(reasons)} {noun} not to begin")
        self.problem = self.problem.at("check", "")  # whoever finds them: it is what checks are for
        self.reasons = reasons


class Ended(MigrateError):
    """The process that was asked for has ended, or a task of its tree has while it was frozen."""

    usual_hint = ""


class Signalled(MigrateError):
    """The process was sent a signal while it was frozen, which it would not get on the destination, or seems so."""


class TransportError(MigrateError):
    """The connection to the destination could not be made, or was lost."""

    of_the_other = True
    usual_hint = "Look whether the host is up, who ended the agent there (dmesg), and try again."


class EndedWell(TransportError):
    """What was started there has ended with status 0, which says nothing of why it was too early."""

    @property
    def kind(self) -> str:
        """See :class:`MigrateError`: for a user it is the same."""
        return TransportError.__name__


class ProtocolError(MigrateError):
    """The other side said something that does not belong here."""

    of_the_other = True
    usual_hint = "Look whether both hosts have the same version, and try again."


class KernelError(MigrateError):
    """A system call failed."""


class CriuError(MigrateError):
    """CRIU failed; ``details`` holds the errors of its log."""


class SwitchError(MigrateError):
    """The network could not be pointed at the other host."""

    usual_hint = "Look at the addresses and routes of that host (ip address, ip route), and try again."


class ImageError(MigrateError):
    """Images are missing, cut or changed."""


class Taken(MigrateError):
    """Somebody on the destination has a name or a port that the process needs, since the check said it was free."""


class TookTooLong(MigrateError):
    """A limit of time was over before COMMIT: --timeout or --max-gap."""


class FilterLost(MigrateError):
    """The packet filter was not in force all the time."""
