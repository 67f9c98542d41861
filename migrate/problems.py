"""What is made of an error that leaves a step: it is stamped with the step and the host, here and nowhere else.

What `tcpcp` and the system raise becomes an error of ours there, with what it was about and what to do about it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace

from migrate.errors import MAKE_ROOM, MigrateError, Problem
from migrate.place import MEMORY
from tcpcp.errors import KernelError, TcpcpError

#: The hint where nothing better is known.
LOOK = "Look at the kernel's log of that host (dmesg), and try again."
_REMEDIES: Mapping[int, str] = {
    errno.ENOMEM: "Free memory on that host, and try again.",
    errno.EMFILE: "Raise the limit of open files there (ulimit -n).",
    errno.ENFILE: "Raise the limit of open files there (sysctl fs.file-max).",
    errno.EAGAIN: "Raise the limits of processes and memory there (ulimit, sysctl kernel.pid_max), and try again.",
    errno.EACCES: "Look what forbids it there: a mount, an attribute (lsattr), SELinux or AppArmor.",
    errno.EPERM: "Look what forbids it there: a mount, an attribute (lsattr), SELinux or AppArmor.",
    errno.EROFS: "Mount that file system there so that it can be written to.",
    errno.ENOENT: "Look there who removed it, or whether it was ever there, and try again.",
    errno.ENAMETOOLONG: "A path there is longer than a call takes (4096 bytes): let the program use a shorter one.",
    errno.EIO: "The device below has failed: look at the kernel's log of that host (dmesg).",
}
_OTHER = {"origin": "destination", "destination": "origin"}


class Foreign(MigrateError):
    """Something that was not raised as an error of ours, and is none of our bugs."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem


@contextlib.contextmanager
def step(phase: str, host: str) -> Iterator[None]:
    """A ``with`` block that is a step, or a part of one, on *host*; the innermost that is left tells.

    :raises MigrateError: what left the block, with *phase*, the host it is about, and what to do; bugs leave it as
        they are.
    """
    try:
        yield
    except MigrateError as error:
        error.stamp(phase, _OTHER[host] if error.of_the_other else host)
        error.suggest(_usual(error))
        raise
    except (TcpcpError, OSError) as error:
        raise Foreign(of(error).at(phase, host)) from error


def of(error: BaseException) -> Problem:
    """What is told of *error*. Whatever is neither raised on purpose nor the system's refusal is a bug."""
    if isinstance(error, MigrateError):
        return error.told()
    notes = tuple(vars(error).get("__notes__", ()))
    kind = type(error).__name__
    if isinstance(error, TcpcpError):
        return Problem(kind, str(error) or kind, _hint_of(error), notes)
    if isinstance(error, OSError):
        return Problem(kind, _text(error), _remedy(error.errno or 0, _path(error)), notes)
    lines = "".join(traceback.format_exception(error)).splitlines()
    return Problem(kind, str(error) or repr(error), details=(*notes, *lines), bug=True)


def as_bug(problem: Problem) -> Problem:
    """*problem* where nothing of the kind should have happened."""
    return replace(problem, bug=True)


def _usual(error: MigrateError) -> str:
    """What to do about one that does not say it: what helps against its cause, or against its kind."""
    cause = error.__cause__
    if isinstance(cause, TcpcpError):
        return _hint_of(cause)
    known = _remedy(cause.errno or 0, _path(cause)) if isinstance(cause, OSError) else LOOK
    return known if known != LOOK or error.usual_hint is None else error.usual_hint


def _hint_of(error: TcpcpError) -> str:
    known = _REMEDIES.get(error.errno, "") if isinstance(error, KernelError) else ""
    return known or error.hint or LOOK


def _text(error: OSError) -> str:
    """What it was about, and the kernel's words; an error without these has its own."""
    if not error.strerror:
        return str(error) or repr(error)
    path = _path(error)
    return f"{path}: {error.strerror}" if path else error.strerror


def _path(error: OSError) -> str:
    names = (error.filename, error.filename2)
    return " -> ".join(os.fsdecode(name) for name in names if isinstance(name, (str, bytes, os.PathLike)))


def _remedy(number: int, path: str) -> str:
    if number in (errno.ENOSPC, errno.EDQUOT):
        ours = not path or path.startswith(tuple(f"{one}/" for one in MEMORY))
        return MAKE_ROOM if ours else f"Make room there on the file system of {path}."
    return _REMEDIES.get(number, LOOK)
