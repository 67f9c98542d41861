"""How to undo each kind of journal entry: one function each, found by the entry's name.

The driver, the agent, their guardians and ``migrate --recover`` all undo through :func:`roll_back`, so there
is one way back. An undo may run twice, may find its work half done or never begun, and may run in another
process than the one that did it.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from migrate import limits, processes, switch
from migrate.errors import MigrateError
from migrate.journal import Record
from tcpcp import hooks, isolation, same_path, tcp_repair, tree
from tcpcp.errors import TcpcpError
from tcpcp.pidfd import Lender

#: What a tree that runs on the destination needs there.
STAYS = frozenset({"switch", "tree", "copied", "directory"})


def roll_back(record: Record) -> tuple[list[str], list[str]]:
    """Undo all entries of *record*, the last first.

    :return: sentences: what was undone, and what could not be. One that fails stops none of the others.
    """
    return _undo(_tree_first(record))


def kill_origin(record: Record) -> list[str]:
    """On the origin, once it runs on the destination: end the frozen tree, undo all but the switch.

    Its sockets die without a word: they are in repair mode, have no address, and the filter goes last.

    :return: sentences: what could not be done.
    """
    left = processes.end(frozen(record))
    problems = [f"could not kill {', '.join(str(pid) for pid, _ in left)}"] if left else []
    entries = [entry for entry in record.entries if entry["did"] not in ("stop", "repair", "switch")]
    # A filter that lets through what a socket still sends would do harm.
    return problems or _undo(entries)[1]


def tidy_destination(record: Record) -> list[str]:
    """On a destination where the tree runs: undo only what it does not need to run.

    :return: sentences: what could not be undone.
    """
    for entry in record.named("copied"):
        if entry["backup"]:
            Path(entry["backup"]).unlink(missing_ok=True)
    return _undo([entry for entry in record.entries if entry["did"] not in STAYS])[1]


def put_doubt_in_order(record: Record) -> list[str]:
    """On the origin, in doubt: remove what neither way on needs, and leave the tree frozen and cut off.

    :return: sentences: what could not be done.
    """
    return _undo(record.named("images", "criu"))[1]


def frozen(record: Record) -> list[processes.Identity]:
    """The tasks of the origin's tree that are alive."""
    tasks = {(pid, start) for entry in record.named("repair", "stop") for pid, start in entry["tasks"]}
    return sorted(task for task in tasks if processes.alive(task))


def _tree_first(record: Record) -> list[dict[str, Any]]:
    """The entries, to be undone from the last: on the origin the tree runs and is reached first of all.

    A CRIU that does not end, and images that are large, must not keep its new connections waiting. On the
    destination nothing waits, and the filter has to outlive the sockets.
    """
    if record.role != "origin":
        return record.entries
    later = record.named("images", "criu")
    return later + [entry for entry in record.entries if entry not in later]


def root_ended(record: Record) -> bool:
    """Whether the process itself, of the origin's tree, has ended; False where it is not known which one it was."""
    tasks = [(pid, start) for entry in record.named("repair", "stop") for pid, start in entry["tasks"]]
    return any(pid == record.pid and not processes.alive((pid, start)) for pid, start in tasks)


def _undo(entries: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    undone, problems = [], []
    for entry in reversed(entries):
        try:
            undone.append(UNDO[entry["did"]](entry))
        except (LookupError, TypeError, ValueError) as error:
            problems.append(f"{entry['did']}: this version cannot undo it: {error!r}")
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
    if not processes.wait_gone(process, time.monotonic() + limits.CRIU_END_S):
        processes.end([process])
    return "CRIU ended"


def _stop(entry: dict[str, Any]) -> str:
    """SIGCONT also takes back a SIGSTOP that was not delivered because CRIU still holds the task.

    Tasks that had been stopped before the migration are not in the entry. One that is gone needs nothing.
    """
    going = [pid for pid, start in entry["tasks"] if processes.send((pid, start), signal.SIGCONT)]
    return f"{len(going)} tasks continued"


def _repair(entry: dict[str, Any]) -> str:
    """Every TCP socket of the tree out of repair mode, which leaves SO_REUSEADDR cleared."""
    count, reuse = 0, entry["reuse"]  # inodes, or true for all
    pids = [pid for pid, start in entry["tasks"] if processes.alive((pid, start))]
    with Lender() as lender:
        for held in tree.tcp_sockets(pids):
            with lender.borrow(*held.holders[0]) as borrowed:
                if not tcp_repair.get_repair(borrowed):
                    continue
                hooks.resume([borrowed])
                if reuse is True or held.inode in reuse:
                    borrowed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                count += 1
    return f"{count} connections resumed"


def _isolation(entry: dict[str, Any]) -> str:
    isolation.remove(entry["name"])
    return "packet filter removed"


def _switch(entry: dict[str, Any]) -> str:
    switch.from_details(entry["details"]).undo()
    return f"switch '{entry['details']['kind']}' undone"


def _routes(entry: dict[str, Any]) -> str:
    """Routes to the peers that were there only while the connections were built."""
    same_path.remove([bytes.fromhex(route) for route in entry["routes"]])
    return f"{len(entry['routes'])} routes removed"


def _tree(entry: dict[str, Any]) -> str:
    """Kill what a restore built, again until nothing is left: one that was just forking left a child."""
    while found := [one for one in _restored(entry) if processes.alive(one)]:
        if stubborn := processes.end(found):
            raise MigrateError(f"could not kill {', '.join(str(pid) for pid, _ in stubborn)}")
    return "restored tasks killed"


def _restored(entry: dict[str, Any]) -> Iterator[processes.Identity]:
    """Processes of the tree's numbers that are younger than the entry, and what CRIU forked beside them."""
    for pid in entry["pids"]:
        with contextlib.suppress(ProcessLookupError):
            found = processes.identity(pid)
            if found[1] >= entry["since"]:
                yield found
    yield from processes.with_environment(entry["marked"], since=entry["since"])


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


UNDO: dict[str, Callable[[dict[str, Any]], str]] = {
    "images": _images,
    "criu": _criu,
    "stop": _stop,
    "repair": _repair,
    "isolation": _isolation,
    "switch": _switch,
    "routes": _routes,
    "tree": _tree,
    "copied": _copied,
    "directory": _directory,
}
