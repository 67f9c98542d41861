"""An error of one host told to the other: exceptions to ``Failure`` messages and back. Pure."""

from __future__ import annotations

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
}


def to_failure(error: BaseException, phase: str = "") -> Failure:
    """Return *error* as a message. A bug keeps its class name as its kind."""
    if not isinstance(error, errors.MigrateError):
        return Failure(phase=phase, kind=type(error).__name__, message=str(error) or repr(error))
    details = [*error.details, *getattr(error, "__notes__", [])]
    if isinstance(error, errors.Refused):
        details = [f"{reason.text} {reason.remedy}" for reason in error.reasons] + details
    return Failure(
        phase=error.phase or phase,
        kind=error.kind,
        message=str(error),
        hint=error.hint,
        log_tail=details[-MAX_DETAILS:],
    )


def from_failure(failure: Failure, role: str = "destination") -> errors.MigrateError:
    """Return the error that *failure* tells of, as one that happened on the host *role*.

    :return: an instance of the class of that name; a plain ``MigrateError`` whose message begins with the
        kind if there is no such class here (a bug over there, or another version).
    """
    if failure.kind == "Refused":
        return _refused(failure, role)
    cls = _CLASSES.get(failure.kind, errors.MigrateError)
    # The kind's own name would be lost otherwise, e.g. of a KeyError.
    message = failure.message if cls.__name__ == failure.kind else f"{failure.kind}: {failure.message}"
    error = cls(message, phase=failure.phase, role=role, hint=failure.hint, details=list(failure.log_tail))
    error.phases = list(failure.phases)
    error.not_there = failure.not_here
    return error


def _refused(failure: Failure, role: str) -> errors.Refused:
    texts = list(failure.log_tail) or [failure.message]
    return errors.Refused([errors.Reason("remote", role, text, failure.hint) for text in texts])
