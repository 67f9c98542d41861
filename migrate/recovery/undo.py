"""How to undo each kind of journal entry: one function each, found by the entry's name.

The driver, the agent, their guardians and ``migrate --recover`` all undo through :func:`roll_back`, so there
is one way back. An undo may run twice, may find its work half done or never begun, and may run in another
process than the one that did it.
"""

from __future__ import annotations

import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from migrate import limits, runtime, switch
from migrate.criu import unix_paths
from migrate.errors import MigrateError
from migrate.events import log
from migrate.files import undo
from migrate.gap.capture import Capture
from migrate.journal.journal import Record
from migrate.processes import freezer, identity, keeper
from migrate.recovery import hold, way_back
from tcpcp.criu import stages, tree
from tcpcp.endpoint import isolation, raw_segment, same_path
from tcpcp.errors import TcpcpError
from tcpcp.kernel.pidfd import Lender

#: What a tree that runs on the destination needs there.
STAYS = frozenset({"switch", "tree", "sockets", "copied", "directory"})


def roll_back(record: Record, capture: Capture | None = None) -> tuple[list[str], list[str]]:
    """Undo all entries of *record*, the last first; on the origin as :func:`_go_on` says.

    :param capture: on the origin: what caught the packets of the gap, if somebody still has it.
    :return: sentences: what was undone, and what could not be. One that fails stops none of the others.
    """
    undone, problems = _go_on(record, capture) if record.role == "origin" else _undo(record.entries)
    log.detail("undone", undone=undone, problems=problems)
    return undone, problems


def kill_origin(record: Record) -> list[str]:
    """On the origin, once it runs on the destination: end the frozen tree, undo all but the switch.

    Its sockets die without a word: they are in repair mode, have no address, and the filter goes last.

    :return: sentences: what could not be done.
    """
    tasks = hold.frozen(record)
    if keepers := record.named("keeper"):
        identity.kill(tasks)  # before the keeper lets go of them, and that before the wait: it traces them
        _undo(keepers)
    left = identity.end(tasks)
    problems = [f"could not kill {', '.join(str(pid) for pid, _ in left)}"] if left else []
    entries = [
        entry for entry in record.entries if entry["did"] not in ("stop", "repair", "switch", "keeper")
    ]
    # A filter that lets through what a socket still sends would do harm.
    return problems or _undo(entries)[1]


def tidy_destination(record: Record) -> list[str]:
    """On a destination where the tree runs: undo only what it does not need to run.

    :return: sentences: what could not be undone.
    """
    problems = []
    for entry in record.named("copied"):
        try:
            undo.forget(entry)
        except (MigrateError, OSError) as error:
            problems.append(f"{entry['backup']} is left: {error}")
    return problems + _undo([entry for entry in record.entries if entry["did"] not in STAYS])[1]


def put_doubt_in_order(record: Record) -> list[str]:
    """On the origin, in doubt: remove what neither way on needs, and keep the tree frozen and cut off.

    :return: sentences: what could not be done.
    """
    hold.again(record)
    return _undo(record.named("images", *(() if hold.kept(record) else ("criu",))))[1]


def ended(record: Record) -> bool:
    """Whether nothing of the origin's tree is alive."""
    if hold.tasks(record):
        return not hold.frozen(record)
    return not Path(f"/proc/{record.pid}").exists()


def root_ended(record: Record) -> bool:
    """Whether the process itself, of the origin's tree, has ended; False where it is not known which one it was."""
    tasks = hold.tasks(record)
    return any(pid == record.pid and not identity.alive((pid, start)) for pid, start in tasks)


def _go_on(record: Record, capture: Capture | None) -> tuple[list[str], list[str]]:
    """On the origin the tree is reached and runs first of all: everybody waits for it.

    The addresses come back, the sockets get what was caught for them, the filter goes, the sockets tell their
    peers, the tree runs: what it sent while the filter holds would leave by a timer. A CRIU that does not end, and
    images that are large, come last. (On the destination the filter has to outlive the sockets.)
    """
    way = way_back.WayBack(record, capture)
    address, filters, last = record.named("switch"), record.named("isolation"), record.named("images", "criu")
    between = [entry for entry in record.entries if entry not in address + filters + last]
    undone: list[str] = []
    problems: list[str] = []
    for entries, then in ((address, way.fill), (filters, way.open), (last + between, way.close)):
        done, left = _undo(entries)
        undone, problems = undone + done, problems + left
        then()
    return undone, problems


def _undo(entries: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    undone, problems = [], []
    for entry in reversed(entries):
        try:
            undone.append(UNDO[entry["did"]](entry))
        except (MigrateError, TcpcpError, OSError) as error:
            problems.append(f"{entry['did']}: {error}")
        except Exception as error:  # one entry stops none of the others, whatever it holds
            problems.append(f"{entry['did']}: this version cannot undo it: {error!r}")
    return undone, problems


def _images(entry: dict[str, Any]) -> str:
    shutil.rmtree(entry["path"], ignore_errors=True)
    if Path(entry["path"]).exists():
        raise MigrateError(f"{entry['path']} could not be removed")
    return f"images removed from {entry['path']}"


def _criu(entry: dict[str, Any]) -> str:
    """A CRIU whose driver is gone sees its socket closed, and lets the tree go or kills what it built."""
    process = (entry["pid"], entry["start"])
    if not identity.wait_gone(process, time.monotonic() + limits.CRIU_END_S):
        identity.end([process])
    return "CRIU ended"


def _stop(entry: dict[str, Any]) -> str:
    """SIGCONT also takes back a SIGSTOP that was not delivered because CRIU still holds the task.

    Tasks that had been stopped before the migration are not in the entry. One that has ended meanwhile, killed
    by its owner, has nothing to be continued.
    """
    going = [pid for pid, start in entry["tasks"] if identity.send((pid, start), signal.SIGCONT)]
    ended = len(entry["tasks"]) - len(going)
    return f"{len(going)} tasks continued" + (f", {ended} had ended" if ended else "")


def _freezer(entry: dict[str, Any]) -> str:
    """Thaw, and each task back to the cgroup that it was in."""
    freezer.release([Path(entry["path"])])
    return f"{entry['path']} thawed and removed"


def _keeper(entry: dict[str, Any]) -> str:
    keeper.let_go((entry["pid"], entry["start"]))
    return "keeper ended"


def _repair(entry: dict[str, Any]) -> str:
    """Every TCP socket of the tree out of repair mode, which leaves SO_REUSEADDR cleared; their peers are woken."""
    count, reuse = 0, entry["reuse"]  # inodes, or true for all
    pids = [pid for pid, start in entry["tasks"] if identity.alive((pid, start))]
    with Lender() as lender, raw_segment.keeping():
        for held in tree.tcp_sockets(pids):
            with lender.borrow(*held.holders[0]) as borrowed:
                if not stages.go_on(borrowed):
                    continue
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
    """As its runtime does; a journal of a version before names none."""
    runtime.find(entry.get("runtime", "")).undo(entry)
    return "restored tasks killed"


UNDO: dict[str, Callable[[dict[str, Any]], str]] = {
    "images": _images,
    "criu": _criu,
    "freezer": _freezer,
    "stop": _stop,
    "keeper": _keeper,
    "repair": _repair,
    "isolation": _isolation,
    "switch": _switch,
    "routes": _routes,
    "tree": _tree,
    "sockets": unix_paths.remove,
    "copied": undo.put_back,
    "directory": undo.remove_directory,
}
