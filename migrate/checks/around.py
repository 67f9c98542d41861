"""What is around a process and does not move with it: who waits for it here, and what it will miss there. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from migrate.checks.subject import ORIGIN, Subject
from migrate.errors import Reason
from migrate.pb.session_pb2 import HostInventory, ProcessInventory, Supervisor

#: Values of Restart= with which a killed service stays ended. Source: man systemd.service(5), table 1.
_NOT_AFTER_SIGKILL = frozenset({"no", "on-success", "on-watchdog"})
_LEAVE = "or pass --leave-supervisor if another one does no harm"


def notes(process: ProcessInventory, destination: HostInventory) -> list[str]:
    """Return what will be different although it is no reason to refuse."""
    return [*_memory(process), *_waiting(process), *_cgroups(process, destination)]


def needs_new_pids(process: ProcessInventory, destination: HostInventory) -> bool:
    """Whether the tree gets a PID namespace of its own there, since it cannot have its numbers."""
    return bool(destination.taken_pids) or max(process.needed_pids, default=0) >= destination.pid_max


def notes_on_pids(process: ProcessInventory, destination: HostInventory, root: int) -> list[str]:
    """Return what it means that the tree cannot have its PIDs there: it keeps them, but only for itself.

    :param root: the PID that its root takes for its own.
    """
    if not needs_new_pids(process, destination):
        return []
    taken = sorted(destination.taken_pids)
    why = (
        f"{taken[0]} is taken there by {destination.taken_by[taken[0]] or 'another'}"
        if taken
        else f"its PIDs end below {root}"
    )
    return [
        f"the process has other PIDs on the destination ({why}): it goes on taking itself for {root}, but a PID"
        f" file or script that says {root} means another process there"
    ]


def unsupervised(subject: Subject) -> Iterator[Reason]:
    """Nobody here waits for the process to start it again: there would be two."""
    process = subject.process
    if subject.along.leave_supervisor:
        return
    for one in process.supervisors:
        if _starts_nothing(process, one) or _knows(process, one):
            continue
        who = subject.who(process.root_pid)
        text, remedy = _of_systemd(who, one) if one.unit else _of_parent(who, one)
        yield Reason("supervised", ORIGIN, text, remedy)


def _knows(process: ProcessInventory, one: Supervisor) -> bool:
    """Whether it is systemd, which is told what becomes of its unit."""
    return bool(one.unit) and one.unit == process.unit.name and not one.of_user


def _starts_nothing(process: ProcessInventory, one: Supervisor) -> bool:
    """Who has started us as well, as a script does, knows of the migration."""
    return (
        one.restart in _NOT_AFTER_SIGKILL
        if one.unit
        else one.starts_nothing or one.pid in process.driver_pids
    )


def _of_systemd(who: str, one: Supervisor) -> tuple[str, str]:
    restart = f"Restart={one.restart}" if one.restart else "whose Restart= cannot be read"
    manager, where = "systemctl --user" if one.of_user else "systemctl", "user" if one.of_user else "system"
    directory = f"$XDG_RUNTIME_DIR/systemd/{where}" if one.of_user else f"/run/systemd/{where}"
    as_one = "" if one.of_user else f"Move it as what it is: migrate --unit {one.unit} HOST. Or: "
    return (
        f"{who} is the main process of {one.unit} ({restart}): systemd will see it die here, and start another one",
        f"{as_one}Write the lines [Service], Restart=no and ExecStop= to {directory}/{one.unit}.d/moved.conf, run"
        f" {manager} daemon-reload, and try again; {_LEAVE}.",
    )


def _of_parent(who: str, one: Supervisor) -> tuple[str, str]:
    return (
        f"{one.comm} (PID {one.pid}), the parent of {who}, will see it die here, and may start another one",
        f"Move {one.comm} with it (name PID {one.pid}); have it start no other one (runit: sv once; supervisord:"
        f" autorestart=false); {_LEAVE}.",
    )


def _waiting(process: ProcessInventory) -> Iterator[str]:
    for one in process.supervisors:
        if _knows(process, one):
            continue
        name = (
            f"systemd, which has it as {one.unit}," if one.unit else f"its parent {one.comm} (PID {one.pid})"
        )
        instead = f"; to move it as that unit: --unit {one.unit}" if one.unit and not one.of_user else ""
        yield f"{name} stays, and will see it die by SIGKILL here{instead}"


def _cgroups(process: ProcessInventory, destination: HostInventory) -> Iterator[str]:
    """CRIU builds the tree in the cgroup of the agent; a unit's in that of the unit there."""
    if process.unit.name:
        return
    theirs = list(destination.cgroup.limits)
    for one in process.cgroups:
        if list(one.limits) != theirs:
            there = (
                f" under {', '.join(theirs)}" if theirs else " without these" * destination.HasField("cgroup")
            )
            yield (
                f"its cgroup {one.path} stays here, with its limits ({', '.join(one.limits)}): on the destination"
                f" it runs in the one of migrate-agent{there}"
            )


def _memory(process: ProcessInventory) -> Iterator[str]:
    for task in process.tasks:
        if task.memory_policy:
            yield (
                f"the memory policy {task.memory_policy} of {task.comm} (PID {task.pid}) does not move with it: on"
                " the destination it gets memory wherever there is some"
            )
