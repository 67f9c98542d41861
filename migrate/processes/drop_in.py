"""A file that changes a unit of systemd until the host boots: written, and taken away again."""

from __future__ import annotations

import contextlib
from pathlib import Path

from migrate.processes import systemd

_BELOW = Path("/run/systemd/system")
#: While the unit leaves. What is started when a unit ends (its own, OnSuccess= apart) would be wrong: it goes on.
LEAVES = """\
# Written by migrate, which moves this unit to another host, and removed when that is over.
[Unit]
SuccessAction=none
FailureAction=none
[Service]
Restart=no
RemainAfterExit=no
SuccessExitStatus=SIGKILL
ExecStop=
ExecStopPost=
"""
#: While it arrives: what it starts is the placeholder, all else of it is as it is.
ARRIVES = """\
# Written by migrate, which moves this unit here from another host, and removed when that is over.
[Unit]
SuccessAction=none
FailureAction=none
StartLimitIntervalSec=0
[Service]
Type=notify
NotifyAccess=all
Restart=no
RemainAfterExit=no
TimeoutStartSec=infinity
SyslogIdentifier={identifier}
ExecCondition=
ExecStartPre=
ExecStart=
ExecStart=+{placeholder} infinity
ExecStartPost=
ExecStop=
ExecStopPost=
"""


def place(unit: str, migration_id: str) -> Path:
    """Where it is. Of those of a unit the last in the alphabet counts."""
    return _BELOW / f"{unit}.d" / f"zz-migrate-{migration_id}.conf"


def write(path: Path, text: str) -> None:
    """Write it, and have systemd read it.

    :raises MigrateError, OSError: it cannot be; what is there of it can be removed.
    """
    path.parent.mkdir(mode=0o755, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    systemd.reload()


def remove(path: Path) -> None:
    """Remove it, and have systemd know; again if it did not the last time.

    :raises MigrateError, OSError: it is left, or systemd goes by it still.
    """
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # others are in there
        path.parent.rmdir()
    systemd.reload()
