"""systemd of this host, asked and told by its own program, with lists of arguments.

By ``systemctl`` and no library: it comes with the systemd that it speaks to, works without a message bus, and a
migration asks a dozen times. Source: man systemctl(1), sd_notify(3), systemd.service(5), systemd.unit(5).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from migrate import limits
from migrate.errors import MigrateError
from migrate.watch import nothing

#: Where a service's standard streams are connected to.
STREAMS = "/run/systemd/journal/stdout"
_BOOTED = Path("/run/systemd/system")
_NOTIFY = "/run/systemd/notify"
_JOURNAL = "/run/systemd/journal/socket"
_LOOK_S = 0.05
_LOOK = "Look at systemctl status, and at journalctl -b _PID=1, on that host."
_NOTICE = 5


def booted() -> bool:
    """Whether it is the init of this host. Source: man sd_booted(3)."""
    return _BOOTED.is_dir()


def show(unit: str, names: Iterable[str]) -> dict[str, str]:
    """The properties *names* of *unit*, as far as this systemd has them.

    :raises MigrateError: it does not answer.
    """
    wanted = frozenset(names)
    text = _told("show", *(f"--property={name}" for name in sorted(wanted)), "--", unit)
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value for name, equals, value in pairs if equals and name in wanted}


def files(unit: str) -> list[str]:
    """What the files of *unit* say, with its drop-ins: lines, without remarks and where they stand.

    :raises MigrateError: it does not answer.
    """
    lines = (line.strip() for line in _told("cat", "--", unit).splitlines())
    return [line for line in lines if line and line[0] not in "#;"]


def reload() -> None:
    """Have it read all units anew. :raises MigrateError: it did not."""
    _told("daemon-reload")


def start(unit: str) -> None:
    """Have it begin to start *unit*. :raises MigrateError: it does not."""
    _told("start", "--no-block", "--", unit)


def stop(unit: str) -> None:
    """Stop *unit*, and forget how it ended. :raises MigrateError: it does not."""
    _told("stop", "--", unit)
    with contextlib.suppress(MigrateError):  # it has not failed
        _told("reset-failed", "--", unit)


def freeze(unit: str) -> None:
    """Freeze all of *unit*; its watchdog waits until :func:`thaw`. :raises MigrateError: it did not."""
    _told("freeze", "--", unit)


def thaw(unit: str) -> None:
    """Take that back. :raises MigrateError: it did not."""
    _told("thaw", "--", unit)


def wait(
    unit: str,
    wanted: Mapping[str, Callable[[str], bool]],
    heed: Callable[[], None] = nothing,
) -> bool:
    """Wait until each property of *wanted* is as it says; whether it is in time.

    :param heed: called again and again meanwhile; may raise.
    """
    deadline = time.monotonic() + limits.UNIT_S
    while True:
        heed()
        found = show(unit, wanted)
        if all(fits(found.get(name, "")) for name, fits in wanted.items()):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)


def notify(sender: int, message: str) -> None:
    """Send *message* in the name of the process *sender*, which is in the unit that it is for.

    As of sd_pid_notify(3): root may say who has sent it.
    :raises OSError: it cannot be sent.
    """
    who = struct.pack("iII", sender, os.geteuid(), os.getegid())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.settimeout(limits.SYSTEMCTL_S)
        credentials = (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, who)
        out.sendmsg([message.encode()], [credentials], 0, _NOTIFY)


def say(unit: str, text: str) -> None:
    """Write *text* to this host's journal, as of *unit*: ``journalctl -u`` shows it. Never waits, never raises.

    Source: systemd's docs/JOURNAL_NATIVE_PROTOCOL.md; man systemd.journal-fields(7), OBJECT_SYSTEMD_UNIT=.
    """
    fields = {
        "MESSAGE": " ".join(text.split()),
        "PRIORITY": str(_NOTICE),
        "SYSLOG_IDENTIFIER": "migrate",
        "OBJECT_SYSTEMD_UNIT": unit,
    }
    line = "".join(f"{name}={value}\n" for name, value in fields.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.setblocking(False)
            out.sendto(line.encode(errors="replace"), _JOURNAL)
    except OSError:
        return


def _told(*words: str) -> str:
    """What ``systemctl`` says. :raises MigrateError: it fails, or takes too long."""
    what = f"systemctl {words[0]}{' ' + words[-1] if words[-1] != words[0] else ''}"
    try:
        done = _run(*words)
    except subprocess.TimeoutExpired:
        raise MigrateError(f"{what} takes longer than {limits.UNIT_S:g} s", hint=_LOOK) from None
    except OSError as error:
        raise MigrateError(f"{what} cannot be run: {error.strerror}", hint=_LOOK) from error
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"status {done.returncode}"
        raise MigrateError(f"{what}: {said}", hint=_LOOK)
    return done.stdout


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemctl", *words],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=limits.UNIT_S,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""},
    )
