"""Doubt about where a process is, ended by asking the destination in a session of its own.

When the link is lost just after COMMIT only the destination's journal knows whether it runs there. It is asked
in the way that had led there before; an agent or guardian that is still at work is waited for.
"""

from __future__ import annotations

import contextlib
import os
import time

from migrate import limits, place, transport
from migrate.errors import MigrateError, TransportError
from migrate.journal.reach import Reach, boot_id
from migrate.link import message_checks, speech
from migrate.link.link import Link
from migrate.pb import session_pb2 as pb
from migrate.processes import network
from migrate.recovery.records import Record

_AGAIN_S = 0.5

#: The answers after which the copy here must never run again.
THERE = (pb.Answer.RUNS, pb.Answer.ENDED)


def ask(record: Record, *, wait_s: float = limits.SETTLE_S) -> pb.Answer:
    """Ask the destination of *record*, the origin's journal, where the process is.

    :raises MigrateError: it could not be asked, or what it says cannot be relied on.
    """
    reach = Reach.read(record.reach, record.other_host)
    with (
        network.home(),
        contextlib.closing(transport.find(reach.transport).open(reach)) as stream,
        contextlib.closing(Link(stream, explain=stream.explain)) as link,
    ):
        _greet(link, reach)
        link.send(pb.Ask(migration_id=record.migration_id, wait_ms=round(1000 * wait_s)))
        answer = link.expect(pb.Answer, timeout_s=wait_s + limits.AGENT_START_S)
        message_checks.check(answer)
        link.send(pb.Goodbye())
        return answer


def _greet(link: Link, reach: Reach) -> None:
    link.send(speech.hello(place.new_id(), hostname=os.uname().nodename, boot_id=boot_id()))
    hello = link.expect(pb.Hello, timeout_s=limits.AGENT_START_S)
    link.speak(speech.agreed(hello), hello.version)
    if reach.boot_id and hello.boot_id != reach.boot_id:
        raise TransportError(
            f"{reach.host} was restarted since, or is another machine: what it says is no answer",
        )


def find_out(record: Record) -> pb.Answer | MigrateError:
    """:func:`ask`, again and again until it has an answer or the time is over; then why there is none."""
    deadline = time.monotonic() + limits.SETTLE_S
    while True:
        said: pb.Answer | MigrateError
        try:
            said = ask(record, wait_s=max(0.0, deadline - time.monotonic()))
        except (MigrateError, OSError) as error:
            said = error if isinstance(error, MigrateError) else TransportError(str(error))
        if isinstance(said, pb.Answer) or time.monotonic() + _AGAIN_S > deadline:
            return said
        time.sleep(_AGAIN_S)


def sentence(answer: pb.Answer, host: str) -> str:
    """What *host* has said, for the report."""
    pid = answer.destination_pid
    said = {
        pb.Answer.RUNS: f"it runs there as PID {pid}",
        pb.Answer.ENDED: f"it ran there as PID {pid}, and has ended",
        pb.Answer.UNDER_WAY: "it is built there and does not run yet, or not wholly undone: under way",
        pb.Answer.NOT_HERE: "it does not run there",
    }
    return f"{host} was asked: {said[answer.where]}"
