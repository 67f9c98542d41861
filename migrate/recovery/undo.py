"""In which order the entries of a journal are undone, and which of them, on either host and at either end.

The driver, the agent, their guardians and ``migrate --recover`` all come here, so there is one way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from migrate.errors import MigrateError
from migrate.events import log
from migrate.files.entries import Copied
from migrate.gap.capture import Capture
from migrate.journal.entry import Entry
from migrate.processes import identity, network
from migrate.recovery import hold, way_back
from migrate.recovery.entries import (
    STAYS,
    Arriving,
    AtPodman,
    AtUnit,
    Container,
    Criu,
    EndedCalls,
    Images,
    Isolation,
    Joined,
    Keeper,
    OfPodman,
    OfUnit,
    Repair,
    Stop,
    Switch,
    Tree,
)
from migrate.recovery.records import Record
from tcpcp.errors import TcpcpError

#: On the origin: they are forgotten when all else is done.
_KEPT = (Container, AtPodman, AtUnit)


def roll_back(record: Record, capture: Capture | None = None) -> tuple[list[str], list[str]]:
    """Undo all entries of *record*, the last first; on the origin as :func:`_go_on` says.

    :param capture: on the origin: what caught the packets of the gap, if somebody still has it.
    :return: sentences: what was undone, and what could not be. One that fails stops none of the others.
    """
    with _where_it_was_done(record):
        undone, problems = _go_on(record, capture) if record.role == "origin" else _take_down(record)
    log.detail("undone", undone=undone, problems=problems)
    return undone, problems


def changed(record: Record) -> list[str]:
    """After :func:`roll_back` on the origin: sentences, what of this host is not as it was before."""
    found = []
    with _where_it_was_done(record):
        for entry in record.entries:
            if isinstance(entry, Switch | AtUnit):
                try:
                    found += entry.changed()
                except Exception as error:  # as in _undo(): whatever it holds, it stops nothing
                    found.append(f"whether all of the {entry.kind} is as it was cannot be told: {error}")
    if found:
        log.tell("changed", what=found)
    return found


def kill_origin(record: Record) -> list[str]:
    """On the origin, once it runs on the destination: end the frozen tree, undo all but the switch.

    Its sockets die without a word: they are in repair mode, have no address, and the filter goes last.

    :return: sentences: what could not be done.
    """
    tasks = hold.frozen(record)
    watch_no_more(record)
    if keepers := record.named(Keeper):
        identity.kill(tasks)  # before the keeper lets go of them, and that before the wait: it traces them
        _undo(keepers)
    left = identity.end(tasks)
    problems = [f"could not kill {', '.join(str(pid) for pid, _ in left)}"] if left else []
    # A filter that lets through what a socket still sends would do harm.
    return problems or _rest_of_origin(record)


def _rest_of_origin(record: Record) -> list[str]:
    with _where_it_was_done(record):
        problems = _undo(record.but(Stop, EndedCalls, Repair, Switch, Keeper, *_KEPT))[1]
    try:
        for plain in record.of(Container):
            plain.forget()
        for podmans in record.of(AtPodman):
            podmans.forget()
    except (MigrateError, OSError) as error:
        problems.append(f"{Container.word}: {error}")
    try:
        for unit in record.of(AtUnit):
            unit.forget(record.pid)
    except (MigrateError, OSError) as error:
        problems.append(f"{AtUnit.word}: {error}")
    return problems


def watch_no_more(record: Record) -> None:
    """On the origin, before the tree is ended: an engine that would start it again does not hear of it.

    :raises MigrateError: what the journal says of that cannot be read.
    """
    for container in record.of(AtPodman):
        container.watch_no_more()


def tidy_destination(record: Record) -> list[str]:
    """On a destination where the tree runs: undo only what it does not need to run.

    :return: sentences: what could not be undone.
    """
    problems = []
    for copied in record.of(Copied):
        try:
            copied.forget()
        except (MigrateError, OSError) as error:
            problems.append(f"{copied.backup} is left: {error}")
    for unit in record.of(OfUnit)[-1:]:  # the last: it knows the placeholder
        try:
            unit.arrived(record.pid)
        except (MigrateError, OSError) as error:
            problems.append(f"{OfUnit.word}: {error}")
    with _where_it_was_done(record):
        return problems + _undo(record.but(*STAYS))[1]


def _where_it_was_done(record: Record) -> AbstractContextManager[None]:
    """A ``with`` block in the network namespace in which it was done; at the origin its tree knows it, too.

    :raises KernelError: it is not there any more.
    """
    own = f"/proc/{record.pid}/ns/net"
    lost = record.network and not network.is_there(record.network)
    if lost and record.named(Joined):  # it went with the container, and what was done in it
        return network.stay("")
    return network.stay(own if lost and record.role == "origin" and hold.frozen(record) else record.network)


def put_doubt_in_order(record: Record) -> list[str]:
    """On the origin, in doubt: remove what neither way on needs, and keep the tree frozen and cut off.

    :return: sentences: what could not be done.
    """
    hold.again(record)
    return _undo(record.named(Images, *(() if hold.kept(record) else (Criu,))))[1]


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
    address, filters, last = record.named(Switch), record.named(Isolation), record.named(Images, Criu)
    between = record.but(Switch, Isolation, Images, Criu)
    undone: list[str] = []
    problems: list[str] = []
    for entries, then in ((address, way.fill), (filters, way.open), (last + between, way.close)):
        done, left = _undo(entries)
        undone, problems = undone + done, problems + left
        then()
    return undone, problems


def _take_down(record: Record) -> tuple[list[str], list[str]]:
    """On the destination: what was built is killed; the filter, which keeps its peers from hearing, goes last."""
    filters = record.named(Isolation)
    # A container's root is mounted once more as long as its runtime knows it: before its files are put back.
    first: tuple[type[Entry], ...] = (Tree, Criu, Arriving) if record.named(Arriving) else ()
    if record.named(OfPodman):  # its network goes with it, and is to be mute by then
        first = (Tree, Criu, Switch, Arriving, OfPodman)
    undone, problems = _undo(record.named(*first))
    done, left = _undo(record.but(Isolation, *first))
    undone, problems = undone + done, problems + left
    for filter_ in filters:
        if isinstance(filter_, Isolation):
            try:
                filter_.forget_orphans()
            except TcpcpError as error:
                log.tell("orphans", problem=str(error))
    done, left = _undo(filters)
    return undone + done, problems + left


def _undo(entries: Sequence[Entry]) -> tuple[list[str], list[str]]:
    undone, problems = [], []
    for entry in reversed(entries):
        try:
            undone.append(entry.undo())
        except (MigrateError, TcpcpError, OSError) as error:
            problems.append(f"{entry.kind}: {error}")
        except Exception as error:  # one entry stops none of the others, whatever it holds
            problems.append(f"{entry.kind}: this version cannot undo it: {error!r}")
    return undone, problems
