"""What is around a process and does not move with it: who waits for it here, and what it will miss there. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from migrate.checks.subject import ORIGIN, Subject
from migrate.errors import Reason
from migrate.pb.session_pb2 import ProcessInventory, Supervisor

#: Values of Restart= with which a killed service stays ended. Source: man systemd.service(5), table 1.
_NOT_AFTER_SIGKILL = frozenset({"no", "on-success", "on-watchdog"})
_LEAVE = "or pass --leave-supervisor if another one does no harm"


def notes(process: ProcessInventory) -> list[str]:
    """Return what will be different although it is no reason to refuse."""
    return [*_memory(process), *_waiting(process)]


def unsupervised(subject: Subject) -> Iterator[Reason]:
    """Nobody here waits for the process to start it again: there would be two."""
    process = subject.process
    if subject.options.leave_supervisor:
        return
    for one in process.supervisors:
        if _starts_nothing(process, one):
            continue
        who = subject.who(process.root_pid)
        text, remedy = _of_systemd(who, one) if one.unit else _of_parent(who, one)
        yield Reason("supervised", ORIGIN, text, remedy)


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
    return (
        f"{who} is the main process of {one.unit} ({restart}): systemd will see it die here, and start another one",
        f"Write the lines [Service], Restart=no and ExecStop= to {directory}/{one.unit}.d/moved.conf, run"
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
        name = (
            f"systemd, which has it as {one.unit}," if one.unit else f"its parent {one.comm} (PID {one.pid})"
        )
        yield f"{name} stays, and will see it die by SIGKILL on origin"


def _memory(process: ProcessInventory) -> Iterator[str]:
    for task in process.tasks:
        if task.memory_policy:
            yield (
                f"the memory policy {task.memory_policy} of {task.comm} (PID {task.pid}) does not move with it: on"
                " the destination it gets memory wherever there is some"
            )
