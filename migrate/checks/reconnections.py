"""Which connections to unix sockets of programs that stay are made anew there, and whether they can be. Pure.

To the journal each stream is, since it carries lines and nothing comes back. Of others the user says so: a new one
begins where the protocol begins, which the program has to be able to bear.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from migrate.checks.subject import DESTINATION, ORIGIN, Subject
from migrate.errors import Reason
from migrate.inventory import reconnections
from migrate.pb.session_pb2 import ProcessInventory, Reconnection
from migrate.request import Along

_JOURNAL_HINT = "Start it there: systemctl start systemd-journald"


def made_anew(process: ProcessInventory, along: Along) -> list[Reconnection]:
    """Those of *process* that are: the journal's, and those that the user has named; none of a container.

    Not those of a unit of systemd that moves as one either: its streams there take their place.
    """
    if process.container.name:
        return []
    apart = ((one.pid, one.fd) for one in process.obstacles if one.code == "unix-outside")
    return [
        one
        for one in reconnections.left(process.reconnections, apart)
        if one.inode not in process.unit.streams
        and (reconnections.is_journal(one.name) or one.name in along.external_sockets)
    ]


def idle(subject: Subject) -> Iterator[Reason]:
    """What is on its way in the old one would be lost."""
    for one in made_anew(subject.process, subject.along):
        if one.busy:
            text = (
                f"descriptor {one.fd} of {subject.who(one.pid)}, a connection to {one.name} that is made anew"
                " there, has something on its way that has not been read"
            )
            yield Reason("unix-busy", ORIGIN, text, "Try again when both ends have read what they were sent.")


def heard(subject: Subject) -> Iterator[Reason]:
    """Somebody has to listen there, and the agent has to know how."""
    wanted = made_anew(subject.process, subject.along)
    if wanted and not subject.destination.reconnects:
        text = f"its migrate does not make connections to {wanted[0].name} anew, which the process has"
        yield Reason("no-reconnection", DESTINATION, text, "Install this version of migrate there, too.")
        return
    for name in sorted({one.name for one in wanted} & {*subject.destination.deaf}):
        one = next(one for one in wanted if one.name == name)
        text = f"nobody listens on {name} there, to which {subject.who(one.pid)} has a connection"
        remedy = _JOURNAL_HINT if reconnections.is_journal(name) else "Start the service there that does."
        yield Reason("no-listener", DESTINATION, text, remedy)


def begun_since(subject: Subject, known: Collection[int]) -> Iterator[Reason]:
    """In the freeze: what the destination was not told of. :param known: inodes of what it was."""
    for one in made_anew(subject.process, subject.along):
        if one.inode not in known:
            text = f"{subject.who(one.pid)} has connected to {one.name} since the check"
            yield Reason("unix-since", ORIGIN, text, "Try again.")


def notes(process: ProcessInventory, along: Along) -> list[str]:
    """Return which are made anew, each path once."""
    return [
        f"the connection of the process to {name} goes to the destination's after the move, as a new one"
        for name in dict.fromkeys(one.name for one in made_anew(process, along))
    ]
