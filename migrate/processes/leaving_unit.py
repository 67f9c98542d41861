"""A unit of systemd whose main process is moved away: held so that its end here is no failure, and starts nothing.

Its watchdog waits while it is frozen by systemd; frozen by a cgroup alone it would be killed by that. What freezes
its tasks is somebody else's business: they are, when :func:`hold_watchdog` is called.
"""

from __future__ import annotations

from pathlib import Path

from migrate.errors import MigrateError
from migrate.processes import drop_in, systemd

_ENDED = ("inactive", "failed")


def hold(unit: str, path: Path) -> None:
    """Have systemd take its end for a good one, and start nothing again: by the drop-in at *path*.

    :raises MigrateError, OSError: it does not; :func:`stays` takes it back.
    """
    drop_in.write(path, drop_in.LEAVES)
    restart = systemd.show(unit, ["Restart"]).get("Restart", "")
    if restart != "no":
        text = f"systemd does not go by {path}: {unit} has Restart={restart} still"
        raise MigrateError(text, hint="Look at systemctl cat, and what overrides it.")


def hold_watchdog(unit: str, cgroup: Path) -> None:
    """Its tasks stand still, by a tracer: have systemd know, which stops its watchdog, and let no-one stop it.

    In the kernel its *cgroup* is thawed at once: CRIU has to work in the tasks. systemd does not look at what
    others do there (core/cgroup.c unit_check_cgroup_events()).

    :raises MigrateError, OSError: it does not; :func:`stays` takes it back.
    """
    systemd.freeze(unit)
    (cgroup / "cgroup.freeze").write_text("0")


def stays(unit: str, path: Path) -> None:
    """All is as before, also if it was begun in part, or taken back already. The tasks run, or have ended.

    :raises MigrateError, OSError: something is left of it.
    """
    if not systemd.booted():  # no unit of it is left
        return
    found = systemd.show(unit, ["ActiveState", "FreezerState"])
    if found.get("FreezerState", "running") != "running" and found.get("ActiveState") not in _ENDED:
        systemd.thaw(unit)
    if path.exists():
        drop_in.remove(path)


def ended(unit: str) -> str:
    """After :func:`stays`: a sentence, if it has ended here: while it was held systemd has not started it again.

    :raises MigrateError: systemd does not answer.
    """
    state = systemd.show(unit, ["ActiveState"]).get("ActiveState", "") if systemd.booted() else ""
    if state not in _ENDED:
        return ""
    return f"{unit} has ended here ({state}), and was not started again: systemctl start {unit}"


def gone(unit: str, path: Path, host: str, main: int) -> None:
    """Its tasks were killed here and run on *host*: systemd sees that, and is as before in all else.

    :param main: its main process was this one; somebody may have started it again since.
    :raises MigrateError, OSError: it has not seen it in time.
    """
    if not path.exists():
        return
    seen = {"MainPID": lambda pid: pid != str(main), "ActiveState": lambda state: state != "deactivating"}
    if not systemd.wait(unit, seen):
        state = systemd.show(unit, ["ActiveState", "SubState"])
        text = f"systemd has not seen the end of {unit}, which is {'/'.join(state.values())}"
        raise MigrateError(text, hint=f"Look at systemctl status {unit}.")
    drop_in.remove(path)
    systemd.say(unit, f"{unit} was moved to {host} by migrate, and is stopped here for that")
