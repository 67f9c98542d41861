"""Every error that `migrate` raises on purpose; anything else that escapes is a bug (exit status 70).

An error says what failed, in which phase, on which host, and what to do. What state the process is in is
added by the driver, which alone knows it (see :class:`migrate.report.report.Report`).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

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


class MigrateError(Exception):
    """Something failed.

    :ivar phase: what was being done, e.g. ``"connect"``, ``"check"``, ``"dump"``.
    :ivar role: the host it failed on: ``"origin"`` or ``"destination"``.
    :ivar hint: what the user can do about it; a sentence, or "".
    :ivar details: lines that help an engineer, e.g. the first errors of CRIU's log.
    :ivar phases: what the other host, which told of the error, had done before.
    :ivar not_there: the destination, which told of the error, said that the process does not run there and will
        not: whatever it had built of it is gone.
    """

    def __init__(
        self,
        message: str,
        *,
        phase: str = "",
        role: str = "origin",
        hint: str = "",
        details: list[str] | None = None,
    ) -> None:
        super().__init__(message)
        self.phase = phase
        self.role = role
        self.hint = hint
        self.details = details or []
        self.phases: Sequence[PhaseTime] = ()
        self.not_there = False

    @property
    def kind(self) -> str:
        """The error's name in ``--json``: the class name."""
        return type(self).__name__


class UsageError(MigrateError):
    """The arguments make no sense."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a process cannot be moved.

    :ivar code: stable name for programs, e.g. ``"port-taken"``.
    :ivar role: the host it is about: ``"origin"`` or ``"destination"``.
    :ivar text: what is wrong; a sentence without the host.
    :ivar remedy: what the user can do; a sentence.
    """

    code: str
    role: str
    text: str
    remedy: str


class Refused(MigrateError):
    """The checks found reasons not to begin; nothing was touched.

    :ivar reasons: all of them, at least one.
    """

    def __init__(self, reasons: list[Reason]) -> None:
        noun = "reason" if len(reasons) == 1 else "reasons"
        super().__init__(f"{len(reasons)} {noun} not to begin", phase="check")
        self.reasons = reasons


class Ended(MigrateError):
    """The process that was asked for has ended, or a task of its tree has while it was frozen."""


class Signalled(MigrateError):
    """The process was sent a signal while it was frozen, which it would not get on the destination."""


class TransportError(MigrateError):
    """The connection to the destination could not be made, or was lost."""


class ProtocolError(MigrateError):
    """The other side said something that does not belong here."""


class KernelError(MigrateError):
    """A system call failed."""


class CriuError(MigrateError):
    """CRIU failed; ``details`` holds the errors of its log."""


class SwitchError(MigrateError):
    """The network could not be pointed at the other host."""


class ImageError(MigrateError):
    """Images are missing, cut or changed."""


class TookTooLong(MigrateError):
    """A limit of time was over before COMMIT: --timeout or --max-gap."""


class FilterLost(MigrateError):
    """The packet filter was not in force all the time."""
