"""Whether the destination's file systems are mounted so that what the process has on them works there. Pure.

With ``noexec`` nothing on a file system can be mapped to be executed, or be the program of a process (prctl(2),
PR_SET_MM_EXE_FILE); with ``nodev`` no device can be opened. CRIU would fail for either when it builds the process.
"""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterator

from migrate.checks.files import asked_for_a_place, pairs
from migrate.checks.subject import DESTINATION, Subject
from migrate.errors import Reason
from migrate.pb.session_pb2 import File


def mounts_permit(subject: Subject) -> Iterator[Reason]:
    """Each program, library and device; also what is copied there, and what has been deleted here."""
    told = set()
    for here, there in (*pairs(subject.process, subject.destination), *asked_for_a_place(subject)):
        reason = forbidden(here, there)
        if reason is not None and here.path not in told:
            told.add(here.path)
            yield reason


def forbidden(here: File, there: File) -> Reason | None:
    """Why what the process has *here* does not work where it is there, or would be; None: it does."""
    path = here.path
    if here.executed and there.no_exec:
        text = f"{path}, of which the process executes code, is on a file system that is mounted noexec there"
        return Reason("noexec", DESTINATION, f"{text} ({there.no_exec})", _remount("exec", there.no_exec))
    if here.use == File.OPEN and stat.S_ISCHR(here.mode) and there.no_devices:
        text = f"{path}, a device that the process has open, is on a file system that is mounted nodev there"
        return Reason("nodev", DESTINATION, f"{text} ({there.no_devices})", _remount("dev", there.no_devices))
    return None


def _remount(option: str, mount: str) -> str:
    return f"Mount it so that it may: mount -o remount,{option} {shlex.quote(mount)}"
