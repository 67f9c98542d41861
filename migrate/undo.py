"""How to undo each kind of journal entry: one function each, found by the entry's name.

The driver, the agent, their guardians and ``migrate --recover`` all undo through :func:`roll_back`, so there is
one way back. An undo may run twice, may find its work half done or never begun, and may run in another
process than the one that did it.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from migrate import processes, switch
from migrate.errors import MigrateError
from migrate.journal import Record
from tcpcp import hooks, isolation, tree
from tcpcp.errors import TcpcpError
from tcpcp.pidfd import Lender

#: How long a CRIU whose driver died may take to notice and to let its tree go.
CRIU_END_S = 30.0


def roll_back(record: Record) -> tuple[list[str], list[str]]:
    """Undo all entries of *record*, the last first.

    :return: sentences: what was undone, and what could not be. One that fails stops none of the others.
    """
    undone, problems = [], []
    for entry in reversed(record.entries):
        try:
            undone.append(UNDO[entry["did"]](entry))
        except (MigrateError, TcpcpError, OSError) as error:
            problems.append(f"{entry['did']}: {error}")
    return undone, problems


def _images(entry: dict[str, Any]) -> str:
    shutil.rmtree(entry["path"], ignore_errors=True)
    if Path(entry["path"]).exists():
        raise MigrateError(f"{entry['path']} could not be removed")
    return f"images removed from {entry['path']}"


def _criu(entry: dict[str, Any]) -> str:
    """A CRIU whose driver is gone sees its socket closed, and lets the tree go or kills what it built."""
    process = (entry["pid"], entry["start"])
    if not processes.wait_gone(process, time.monotonic() + CRIU_END_S):
        processes.end([process])
    return "CRIU ended"


def _stop(entry: dict[str, Any]) -> str:
    """SIGCONT also takes back a SIGSTOP that was not delivered because CRIU still holds the task."""
    going = [pid for pid, start in entry["tasks"] if processes.send((pid, start), signal.SIGCONT)]
    if len(going) != len(entry["tasks"]):
        raise MigrateError(f"of {len(entry['tasks'])} stopped tasks only {len(going)} are left")
    return f"{len(going)} tasks continued"


def _repair(entry: dict[str, Any]) -> str:
    """Every TCP socket of the tree out of repair mode."""
    count = 0
    pids = [pid for pid, start in entry["tasks"] if processes.alive((pid, start))]
    with Lender() as lender:
        for held in tree.tcp_sockets(pids):
            with lender.borrow(*held.holders[0]) as borrowed:
                hooks.resume([borrowed])
                count += 1
    return f"{count} connections resumed"


def _isolation(entry: dict[str, Any]) -> str:
    isolation.remove(entry["name"])
    return "packet filter removed"


def _switch(entry: dict[str, Any]) -> str:
    switch.from_details(entry["details"]).undo()
    return f"switch '{entry['details']['kind']}' undone"


def _tree(entry: dict[str, Any]) -> str:
    """Kill what a restore built: processes of these numbers that are younger than the entry."""
    found = []
    for pid in entry["pids"]:
        with contextlib.suppress(ProcessLookupError):
            found.append(processes.identity(pid))
    stubborn = processes.end([one for one in found if one[1] >= entry["since"]])
    if stubborn:
        raise MigrateError(f"could not kill {', '.join(str(pid) for pid, _ in stubborn)}")
    return "restored tasks killed"


def _copied(entry: dict[str, Any]) -> str:
    """A file that was copied here: the one it replaced comes back, or there is none again."""
    path, backup = Path(entry["path"]), entry["backup"]
    if backup and Path(backup).exists():
        Path(backup).replace(path)
    elif not backup:
        path.unlink(missing_ok=True)
    return f"{path} as before"


def _directory(entry: dict[str, Any]) -> str:
    """A directory that was made for a copied file, unless something else is in it by now."""
    with contextlib.suppress(OSError):
        Path(entry["path"]).rmdir()
    return f"{entry['path']} removed if it was empty"


def forget_backups(record: Record) -> None:
    """The migration has succeeded: what its copied files replaced is not needed any more."""
    for entry in record.entries:
        if entry["did"] == "copied" and entry["backup"]:
            Path(entry["backup"]).unlink(missing_ok=True)


UNDO: dict[str, Callable[[dict[str, Any]], str]] = {
    "images": _images,
    "criu": _criu,
    "stop": _stop,
    "repair": _repair,
    "isolation": _isolation,
    "switch": _switch,
    "tree": _tree,
    "copied": _copied,
    "directory": _directory,
}
