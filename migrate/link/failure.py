"""An error of one host told to the other: exceptions to ``Failure`` messages and back. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TypeVar

from migrate import errors
from migrate.pb.session_pb2 import Failure

MAX_DETAILS = 200

E = TypeVar("E", bound=Exception)


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

    :return: of the kind that it had over there, in a class by which it can be caught here. The text of one that is
        no error here (a bug over there, or another version) begins with the kind, which says the most of it.
    """
    if failure.kind == "Refused":
        return _refused(failure, role)
    cls = _classes().get(failure.kind)
    text = failure.message if cls is not None else f"{failure.kind}: {failure.message}"
    error = (cls or errors.MigrateError)(text, hint=failure.hint, details=failure.log_tail)
    kind = failure.kind or error.kind
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


def _classes() -> Mapping[str, type[errors.MigrateError]]:
    """Kind -> the class by which it is caught here: that of `tcpcp` and the system do not cross the wire."""
    from tcpcp import errors as library  # not before the agent's hello

    found = {one.__name__: errors.MigrateError for one in _derived(OSError)}
    found |= {one.__name__: errors.KernelError for one in _derived(library.TcpcpError)}
    found |= {one.__name__: errors.ImageError for one in (library.IciError, library.CodecError)}
    return found | {one.__name__: _plain(one) for one in _derived(errors.MigrateError)}


def _derived(cls: type[E]) -> Iterator[type[E]]:
    """*cls* and what is derived from it, at whatever distance."""
    yield cls
    for one in cls.__subclasses__():
        yield from _derived(one)


def _plain(cls: type[errors.MigrateError]) -> type[errors.MigrateError]:
    """*cls*, or what it is derived from that is of the taxonomy, and made of a text, a hint and details."""
    ours = (one for one in cls.__mro__ if one.__module__ == errors.__name__ and "__init__" not in vars(one))
    return next(ours, errors.MigrateError)
