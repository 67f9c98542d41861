"""A unit of systemd whose main process comes from another host: a placeholder runs in its place until it is here.

systemd starts the unit with all that belongs to it: its cgroup and limits, its directories, its streams to the
journal. Only what it runs is ours, `sleep`. The restored process is told to be the main process then (sd_notify).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from migrate import limits
from migrate.errors import MigrateError
from migrate.processes import drop_in, freezer, identity, stat, systemd
from migrate.processes.identity import Identity
from migrate.watch import nothing
from tcpcp.errors import TcpcpError
from tcpcp.kernel.pidfd import Lender

_PROGRAM = "sleep"
_LOOK_S = 0.01


class PidFile(NamedTuple):
    """The file of a unit that has its number (PIDFile=): "" for none; whose it is, and its mode."""

    path: str = ""
    uid: int = 0
    gid: int = 0
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Placeholder:
    """It runs. :ivar cgroup: its directory. :ivar streams: copies of its standard streams, by their numbers."""

    unit: str
    process: Identity
    cgroup: Path
    streams: Mapping[int, int]

    def take_in(self, pid: int) -> None:
        """*pid* is in the unit's cgroup from now on, and what it makes. systemd kills it with the unit.

        :raises MigrateError: it cannot be.
        """
        try:
            (self.cgroup / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            raise MigrateError(f"process {pid} cannot be put into {self.cgroup}: {error.strerror}") from error

    def check(self) -> None:
        """Return while it runs. :raises MigrateError: it does not."""
        if not identity.alive(self.process):
            text = f"the placeholder of {self.unit} (process {self.process[0]}) has ended"
            raise MigrateError(text, hint=f"Look for who stopped the unit: journalctl -u {self.unit}.")

    def close(self) -> None:
        """Forget it; it runs on."""
        for one in self.streams.values():
            os.close(one)


def begin(unit: str, path: Path, wanted: frozenset[int], heed: Callable[[], None] = nothing) -> Placeholder:
    """Have systemd start *unit* with a placeholder, by the drop-in at *path*.

    :param wanted: the numbers of the standard streams that are to lead to the journal.
    :param heed: called again and again meanwhile.
    :raises MigrateError, OSError: it does not run; :func:`undo` leaves nothing.
    """
    if not (program := shutil.which(_PROGRAM)):
        raise MigrateError(f"{_PROGRAM} is not installed", hint="Install coreutils.")
    drop_in.write(path, drop_in.ARRIVES.format(identifier=_identifier(unit), placeholder=program))
    systemd.start(unit)
    process = _started(unit, heed)
    try:
        cgroup = freezer.cgroup_of(freezer.mount_point(), process[0])
        return Placeholder(unit, process, cgroup, _streams(unit, process[0], wanted))
    except (freezer.Unavailable, ProcessLookupError, FileNotFoundError, TcpcpError) as error:
        raise MigrateError(f"the placeholder of {unit} cannot be looked at: {error}") from error


def _identifier(unit: str) -> str:
    """By which the journal calls what the unit writes; as systemd would choose it."""
    found = systemd.show(unit, ["SyslogIdentifier", "ExecStart"])
    if said := found.get("SyslogIdentifier"):
        return said
    _, _, rest = found.get("ExecStart", "").partition("path=")
    return rest.partition(" ;")[0].rpartition("/")[2] or unit.removesuffix(".service")


def _started(unit: str, heed: Callable[[], None]) -> Identity:
    deadline = time.monotonic() + limits.UNIT_S
    while time.monotonic() < deadline:
        heed()
        found = systemd.show(unit, ["MainPID", "ActiveState", "Job", "Result", "ConditionResult"])
        pid = int(found.get("MainPID") or 0)
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            if pid and Path(f"/proc/{pid}/comm").read_text().strip() == _PROGRAM:
                return identity.identity(pid)
        idle = found.get("ActiveState") == "inactive" and found.get("Job", "0") in ("", "0")
        if idle or found.get("ActiveState") == "failed":
            why = f"Result={found.get('Result')}, ConditionResult={found.get('ConditionResult')}"
            raise MigrateError(
                f"systemd does not start {unit} there: {why}", hint=f"Look at journalctl -u {unit}."
            )
        time.sleep(_LOOK_S)
    text = f"systemd has not started {unit} within {limits.UNIT_S:g} s"
    raise MigrateError(text, hint="Look for what it waits for: systemctl list-jobs.")


def _streams(unit: str, pid: int, wanted: frozenset[int]) -> dict[int, int]:
    """:raises MigrateError: one does not lead to the journal."""
    found: dict[int, int] = {}
    with Lender() as lender:
        for number in sorted(wanted):
            found[number] = lender.descriptor(pid, number)
            if not _leads_to_journal(found[number]):
                for one in found.values():
                    os.close(one)
                text = f"descriptor {number} of {unit} does not lead to the journal there, and does at the origin"
                raise MigrateError(
                    text, hint="Have StandardOutput= and StandardError= the same on both hosts."
                )
    return found


def _leads_to_journal(descriptor: int) -> bool:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as one:
        return bool(one.getpeername() == systemd.STREAMS)
    return False


def adopt(unit: str, path: Path, placeholder: Identity, root: int, pid_file: PidFile, host: str) -> None:
    """Make *root*, which runs in the unit's cgroup, its main process; *placeholder* ends, and all is as usual.

    It may have been done already, or in part.
    :param host: where it came from.
    :raises MigrateError, OSError: it is not, or something is left of it.
    """
    if not path.exists():
        return
    if not Path(f"/proc/{root}").exists():  # it has ended since
        undo(unit, path)
        return
    take_over(unit, placeholder, root)
    identity.end([placeholder])
    if pid_file.path:
        _write(pid_file, root)
    drop_in.remove(path)
    systemd.say(unit, f"{unit} was moved here from {host} by migrate, as process {root}")


def _main(unit: str) -> int:
    return int(systemd.show(unit, ["MainPID"]).get("MainPID") or 0)


def take_over(unit: str, placeholder: Identity, root: int) -> None:
    """Make *root* its main process, which is *placeholder*, or is it already: the first part of :func:`adopt`.

    :raises MigrateError, OSError: it is not.
    """
    if _main(unit) == root:
        return
    mounted = freezer.mount_point()
    try:
        together = freezer.cgroup_of(mounted, placeholder[0]) == freezer.cgroup_of(mounted, root)
    except (freezer.Unavailable, ProcessLookupError, FileNotFoundError) as error:
        raise MigrateError(f"process {root} is not the main process of {unit}: {error}") from error
    if not together or not identity.alive(placeholder) or _main(unit) != placeholder[0]:
        text = f"process {root} is not in {unit}, or that has another main process"
        raise MigrateError(text, hint=f"Look at systemctl status {unit}.")
    _wait_for_init(root)
    systemd.notify(placeholder[0], f"MAINPID={root}\nREADY=1")
    wanted = {"MainPID": lambda pid: pid == str(root), "ActiveState": lambda state: state == "active"}
    if not systemd.wait(unit, wanted):
        text = f"systemd does not take process {root} for the main process of {unit}"
        raise MigrateError(text, hint=f"Look at systemctl status {unit}.")


def _wait_for_init(root: int) -> None:
    """Of a process that is no child of its systemd hears when its cgroup is empty only, and says so."""
    deadline = time.monotonic() + limits.ORPHANED_S
    with contextlib.suppress(OSError):
        while _parent(root) != 1 and time.monotonic() < deadline:
            time.sleep(_LOOK_S)


def _parent(pid: int) -> int:
    return stat.parse(Path(f"/proc/{pid}/stat").read_bytes().decode(errors="replace")).ppid


def _write(pid_file: PidFile, root: int) -> None:
    """The last part of its path is nobody's link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(pid_file.path, flags, 0o600)
    try:
        os.write(descriptor, f"{root}\n".encode())
        os.fchown(descriptor, pid_file.uid, pid_file.gid)
        os.fchmod(descriptor, pid_file.mode & 0o777)
    finally:
        os.close(descriptor)


def undo(unit: str, path: Path) -> None:
    """The unit is as before: stopped, and its own. All that is in it is ended; also if it was begun in part.

    :raises MigrateError, OSError: something is left of it.
    """
    if path.exists():
        systemd.stop(unit)
        drop_in.remove(path)
