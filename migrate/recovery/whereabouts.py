"""The destination's answer to the question where the process of a migration is: its journal knows.

A journal that nobody owns any more is settled first, as its guardian would have done.
"""

from __future__ import annotations

import time

from migrate import limits, place
from migrate.errors import MigrateError
from migrate.journal import journal
from migrate.pb import session_pb2 as pb
from migrate.processes import identity
from migrate.recovery import arrived, records, settle, unseen
from migrate.recovery.entries import Tree
from migrate.recovery.records import Record
from migrate.states import State

_LOOK_S = 0.05


def find(migration_id: str, wait_s: float) -> pb.Answer:
    """Where the process of *migration_id* is, waiting for *wait_s* at most until that is settled."""
    deadline = time.monotonic() + min(wait_s, limits.ASKED_S)
    directory = place.home(migration_id)
    while True:
        with journal.owned(directory) as owned:
            if owned:
                settle.settle_safely(directory)
        try:
            answer = of(records.read(directory), owned=owned)
        except FileNotFoundError:
            answer = _settled(migration_id)
            if answer.where != pb.Answer.NOT_HERE or not unseen.guarded(migration_id):
                return answer
            # Somebody is at work on it, and has a journal that its path does not lead to.
            answer, owned = pb.Answer(where=pb.Answer.UNDER_WAY), False
        except MigrateError:  # damaged: only a person can say
            answer = pb.Answer(where=pb.Answer.UNDER_WAY)
        if owned or answer.where == pb.Answer.RUNS or time.monotonic() > deadline:
            return answer
        time.sleep(_LOOK_S)


def of(record: Record, *, owned: bool) -> pb.Answer:
    """What the journal of a destination says.

    :param owned: nobody else has it: what is not done now will not be done by itself.
    """
    if record.state == State.ACTIVATED.value:
        return _of(arrived.root(record))
    built = [task for one in record.of(Tree) for task in one.tasks]
    if owned and record.state != State.COMMITTED.value and not any(map(identity.alive, built)):
        return pb.Answer(where=pb.Answer.NOT_HERE)
    return pb.Answer(where=pb.Answer.UNDER_WAY, destination_pid=record.destination_pid)


def _settled(migration_id: str) -> pb.Answer:
    try:
        process = arrived.find(migration_id)
    except MigrateError:  # damaged: only a person can say
        return pb.Answer(where=pb.Answer.UNDER_WAY)
    return pb.Answer(where=pb.Answer.NOT_HERE) if process is None else _of(process)


def _of(process: identity.Identity) -> pb.Answer:
    where = pb.Answer.RUNS if identity.alive(process) else pb.Answer.ENDED
    return pb.Answer(where=where, destination_pid=process[0])


def sentence(answer: pb.Answer) -> str:
    """*answer* as the destination says it to who looks there."""
    pid = answer.destination_pid
    if answer.where == pb.Answer.RUNS:
        return f"PID {pid}: runs here"
    if answer.where == pb.Answer.ENDED:
        return f"PID {pid}: ran here, and has ended or was moved on"
    if answer.where == pb.Answer.NOT_HERE:
        return "not here"
    built = f"PID {pid}: built, not running yet" if pid else "nothing is built yet"
    return f"{built}; under way, left alone: decide nothing before this says something else"
