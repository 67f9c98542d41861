"""``migrate ps``: the process trees of this host that have TCP sockets, and whether they could be moved.

Each is looked at as ``migrate --check PID`` does without HOST: none is held still, and nothing is changed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from migrate import inventory
from migrate.errors import Exit, MigrateError, Reason, Refused
from migrate.inventory import connected, proc, supervision
from migrate.inventory.connected import Tree
from migrate.origin import here
from migrate.pb import session_pb2 as pb
from migrate.processes import containers
from migrate.processes.chosen import Subject
from migrate.report import observer, trees
from migrate.report.trees import Row
from migrate.request import Request
from migrate.words import Parser
from tcpcp import exit_status
from tcpcp.errors import TcpcpError

#: So many trees are looked at at the same time.
_AT_ONCE = 8
#: As a shell says it of a program that Ctrl-C has ended.
_INTERRUPTED = 130
EXITS = {
    0: "all were listed",
    2: "wrong arguments",
    3: "they cannot be: the message says why",
    _INTERRUPTED: "Ctrl-C",
}
#: No move begins, and no log.
_NO_ID = ""


def parser() -> argparse.ArgumentParser:
    """What reads the words behind ``migrate ps``."""
    made = Parser(
        prog="migrate ps",
        description="List the process trees of this host that have TCP sockets: where they listen, how many"
        " connections they hold, and whether something on this host is in the way of moving them. Nothing is held"
        " still or changed. Of containers it is not looked at: migrate --check --container NAME says it.",
        epilog=exit_status.sentence(EXITS),
        allow_abbrev=False,
    )
    made.add_argument("--json", action="store_true", help="JSON lines, one a tree, with all reasons")
    return made


def main(words: Sequence[str]) -> int:
    """Print what *words* ask for; the exit status.

    :raises UsageError: they make no sense.
    """
    options = parser().parse_args(words)
    if os.geteuid() != 0:
        print("migrate ps: needs root. Run it as root, e.g. by sudo.", file=sys.stderr)
        return Exit.UNTOUCHED
    try:
        _print_json() if options.json else _print_table()
    except (MigrateError, TcpcpError) as error:
        print(f"migrate ps: {error}", file=sys.stderr)
        return Exit.UNTOUCHED
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # who reads has seen enough
    return Exit.MOVED


def _print_json() -> None:
    for row in rows():
        print(observer.line("tree", **row.as_json()), flush=True)


def _print_table() -> None:
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else trees.COLUMNS
    print(trees.head(columns))
    for row in rows():
        print("\n".join(trees.lines(row, columns)), flush=True)


def rows(look: Callable[[int, pb.HostInventory], list[Reason]] | None = None) -> Iterator[Row]:
    """Each tree, as it is looked at; those that end meanwhile are left out.

    :param look: for tests, instead of the check.
    :raises MigrateError, TcpcpError: the kernel does not tell of its sockets.
    """
    running = containers.running()
    found = connected.trees(running)
    host = inventory.host()

    def one(tree: Tree) -> Row | None:
        with contextlib.suppress(Refused), proc.passing_over(), Subject(tree.root_pid) as subject:
            row = _row(tree, running.get(tree.root_pid, ""), host, look or reasons)
            return None if subject.ended() else row
        return None

    # A look waits for most of its time: whether what it has seen is still so a moment later.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from (row for row in pool.map(one, found) if row is not None)


def reasons(pid: int, host: pb.HostInventory) -> list[Reason]:
    """What on this host is in the way of moving the tree of *pid*; also that it cannot be looked at."""
    try:
        return here.look(Request(pid=pid, host="", check=True), None, _NO_ID, host).reasons
    except (MigrateError, TcpcpError, OSError) as error:
        hint = error.problem.hint if isinstance(error, MigrateError) else ""
        return [Reason("not-looked-at", "origin", str(error), hint)]


def _row(
    tree: Tree, container: str, host: pb.HostInventory, look: Callable[[int, pb.HostInventory], list[Reason]]
) -> Row:
    pid, sockets = tree.root_pid, tree.sockets
    told = [] if container else look(pid, host)
    return Row(
        pid=pid,
        program=proc.stat(pid).comm,
        user=_user(int(proc.status(pid)["Uid"].split()[0])),
        unit=supervision.unit_of(proc.text(pid, "cgroup"))[0],
        container=container,
        listens=connected.listening(sockets),
        addresses=connected.addresses(sockets),
        connections=len(connected.connections(sockets)),
        memory_bytes=connected.memory_bytes(pid),
        movable=None if container else not told,
        reasons=told,
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
