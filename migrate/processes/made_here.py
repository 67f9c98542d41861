"""Which processes of this host a restore has made: known by what only those have, never by their numbers.

A number of the tree may belong to anybody: it was free at the check, and was given out since. Ours are

- those that CRIU had built when it said so, written down then with their start times;
- before that, and beside them, what was forked from our CRIU and still has its environment, with our mark;
- what writes to a file of our image directory: every task that CRIU builds has CRIU's log open until it is
  whole (criu/pie/restorer.c closes it after the stage that we are told of), also when its environment is
  that of the restored program already. Who only reads there, say an engineer who looks at the log, is not.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from migrate.processes import identity


def processes_of(built: Iterable[identity.Identity], mark: str, images: str) -> list[identity.Identity]:
    """The living processes of a tree that CRIU builds here.

    :param built: those that were, as CRIU said. :param mark: ``NAME=VALUE``, in the environment of that CRIU.
    :param images: its image directory.
    """
    found = {*built, *identity.with_environment(mark), *_with_file_below(images)}
    return sorted(one for one in found if identity.alive(one) and one[0] != os.getpid())


def _with_file_below(directory: str) -> list[identity.Identity]:
    found = []
    for process in Path("/proc").iterdir():
        # It has ended meanwhile, or not even root may look at it.
        with contextlib.suppress(OSError):
            if process.name.isdigit() and _writes_below(process, directory + "/"):
                found.append(identity.identity(int(process.name)))
    return found


def _writes_below(process: Path, prefix: str) -> bool:
    for one in (process / "fd").iterdir():
        with contextlib.suppress(OSError):  # closed since, or a path that is longer than the kernel tells
            target = os.readlink(one)  # noqa: PTH115
            if target.startswith(prefix) and _writes(process / "fdinfo" / one.name):
                return True
    return False


def _writes(info: Path) -> bool:
    """Whether a descriptor can write, from its /proc/PID/fdinfo/FD (man proc(5): ``flags`` are octal)."""
    for line in info.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "flags":
            return bool(int(value, 8) & os.O_ACCMODE)
    return False
