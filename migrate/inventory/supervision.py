"""Who waits for the tree's root at the origin: a unit of systemd, or the process that started it.

Whoever it is sees it die when the copy here is killed, and may start another one. Nothing is asked of a
supervisor itself but of systemd, by systemctl.

Source: man systemd.service(5), Restart=; man systemctl(1); man cgroups(7); systemd's doc/CGROUP_DELEGATION.md.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Collection
from pathlib import Path

from migrate import limits
from migrate.inventory import proc
from migrate.inventory.proc import Gone
from migrate.pb.session_pb2 import Supervisor

_BOOTED = Path("/run/systemd/system")
_USER_MANAGER = re.compile(r"user@\d+\.service")
_SERVICE = re.compile(r"[^/]+\.service")
#: They start a session, and nothing again when it has ended.
_OF_SESSIONS = frozenset({"login", "screen", "sshd", "sshd-session", "tmux: server"})
#: Shells: at a terminal they tell of a child's death and start nothing; a script may do anything.
_SHELLS = frozenset({"ash", "bash", "csh", "dash", "fish", "ksh", "mksh", "sh", "tcsh", "zsh"})
_WANTED = ("MainPID", "Restart")


def supervisors(root_pid: int, tree: Collection[int]) -> list[Supervisor]:
    """Whoever waits for *root_pid*.

    :param tree: the processes that move, among them *root_pid*.
    :raises Gone: it has ended.
    """
    parent = proc.stat(root_pid).ppid
    if proc.link(root_pid, "ns/pid") != proc.link(os.getpid(), "ns/pid"):
        return []  # its parent is who keeps that namespace: our own, which starts nothing, or it is refused for it
    unit, by_user = unit_of(proc.text(root_pid, "cgroup"))
    if unit:
        found = _of_unit(unit, by_user, root_pid, tree)
        if found is not None:
            return [found]
    if parent <= 1 or parent in tree:
        return []
    with contextlib.suppress(Gone):
        stat = proc.stat(parent)
        at_terminal = bool(stat.tty_nr) and stat.session == parent
        if stat.comm != "systemd":
            nothing = stat.comm in _OF_SESSIONS or (stat.comm in _SHELLS and at_terminal)
            return [Supervisor(pid=parent, comm=stat.comm, starts_nothing=nothing)]
    return []


def unit_of(cgroup: str) -> tuple[str, bool]:
    """The service that the content of /proc/PID/cgroup names, "" for none; and whether a user's manager has it."""
    for line in cgroup.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (number, controllers) != ("0", "") and controllers != "name=systemd":
            continue
        parts = path.split("/")
        managers = [at for at, part in enumerate(parts) if _USER_MANAGER.fullmatch(part)]
        below = parts[managers[-1] + 1 :] if managers else parts
        services = [part for part in below if _SERVICE.fullmatch(part)]
        if services:
            return services[-1], bool(managers)
    return "", False


def _of_unit(unit: str, by_user: bool, root_pid: int, tree: Collection[int]) -> Supervisor | None:
    """systemd, if it waits for the tree; None if *unit* has another main process."""
    if not _BOOTED.is_dir():
        return None
    said = {} if by_user else shown(_systemctl(unit))
    main = int(said.get("MainPID", "0") or "0")
    if said and main not in tree:
        return None
    parent = proc.stat(root_pid).ppid
    with contextlib.suppress(Gone):
        # Who is no child of a manager has a supervisor of his own.
        if said or (parent > 0 and proc.stat(parent).comm == "systemd"):
            return Supervisor(
                pid=parent, comm="systemd", unit=unit, restart=said.get("Restart", ""), of_user=by_user
            )
    return None


def _systemctl(unit: str) -> str:
    command = ["systemctl", "show", *(f"--property={name}" for name in _WANTED), "--", unit]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limits.SYSTEMCTL_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def shown(text: str) -> dict[str, str]:
    """What ``systemctl show`` has printed; empty where that is nothing that it prints."""
    pairs = (line.partition("=") for line in text.splitlines())
    found = {name: value for name, _, value in pairs if name in _WANTED}
    return found if found.get("MainPID", "").isdecimal() else {}
