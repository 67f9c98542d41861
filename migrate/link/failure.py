"""An error of one host told to the other: exceptions to ``Failure`` messages and back. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from migrate import errors
from migrate.pb.session_pb2 import Failure

MAX_DETAILS = 200

_CLASSES: Mapping[str, type[errors.MigrateError]] = {
    cls.__name__: cls
    for cls in (
        errors.UsageError,
        errors.Ended,
        errors.TransportError,
        errors.ProtocolError,
        errors.KernelError,
        errors.CriuError,
        errors.SwitchError,
        errors.ImageError,
        errors.Taken,
        errors.TookTooLong,
        errors.FilterLost,
    )
} | {
    # What `tcpcp` raises; its classes do not cross the wire.
    "IciError": errors.ImageError,
    "CodecError": errors.ImageError,
    "Unsupported": errors.KernelError,
    "PermissionDenied": errors.KernelError,
    "IsolationError": errors.KernelError,
    "Unfed": errors.KernelError,
    "Expired": errors.KernelError,
    "Moved": errors.KernelError,
    "OtherNamespace": errors.KernelError,
    "AlreadyGot": errors.KernelError,
    "NotGot": errors.KernelError,
    "AddressInUse": errors.KernelError,
}
#: What the system refuses keeps its name.
_OF_THE_SYSTEM = frozenset({OSError.__name__, *(one.__name__ for one in OSError.__subclasses__())})
#: Kinds whose text says all.
_KNOWN = _OF_THE_SYSTEM | _CLASSES.keys()


def to_failure(error: errors.MigrateError) -> Failure:
    """Return what is told of *error* as a message."""
    problem = error.told()
    details = list(problem.details)
    if isinstance(error, errors.Refused):
        details = [f"{reason.text} {reason.remedy}" for reason in error.reasons] + details
    return Failure(
        phase=problem.phase,
        kind=problem.kind,
        message=sendable(problem.text),
        hint=sendable(problem.hint),
        log_tail=map(sendable, details[-MAX_DETAILS:]),
    )


def sendable(text: str) -> str:
    """*text* as a message can have it: names of files need not be UTF-8, and are in the texts all the same."""
    return text.encode(errors="backslashreplace").decode()


def from_failure(failure: Failure, role: str = "destination") -> errors.MigrateError:
    """Return the error that *failure* tells of, as one that happened on the host *role*.

    :return: an instance of the class of that name; a plain ``MigrateError`` whose message begins with the
        kind if there is no such class here (a bug over there, or another version), unless it is the system's.
    """
    if failure.kind == "Refused":
        return _refused(failure, role)
    cls = _CLASSES.get(failure.kind, errors.MigrateError)
    plain = cls.__name__ == failure.kind or failure.kind in _KNOWN
    # The kind's own name would be lost otherwise, e.g. of a KeyError.
    text = failure.message if plain else f"{failure.kind}: {failure.message}"
    error = cls(text, hint=failure.hint, details=failure.log_tail)
    kind = failure.kind if failure.kind in _OF_THE_SYSTEM else error.kind
    error.problem = dataclasses.replace(error.problem, kind=kind, phase=failure.phase, host=role)
    error.phases = list(failure.phases)
    error.left = list(failure.left)
    error.not_there = failure.not_here
    return error


def _refused(failure: Failure, role: str) -> errors.Refused:
    texts = list(failure.log_tail) or [failure.message]
    error = errors.Refused([errors.Reason("remote", role, text, failure.hint) for text in texts])
    error.stamp(failure.phase, role)
    return error
