"""The destination hears why nothing comes of it, also if the reason has the name of a file that is no text."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from migrate import place, problems
from migrate.errors import MigrateError, Reason, Refused
from migrate.events.line import MOST_TEXT
from migrate.link.link import Link
from migrate.link.stream import FdStream
from migrate.machine import Machine
from migrate.origin import prepare
from migrate.origin.account import Account
from migrate.origin.early import EarlyEnding
from migrate.origin.move import Move
from migrate.origin.session import Session, told_of_refusal
from migrate.pb import session_pb2 as pb
from migrate.report.report import Outcome, Report
from migrate.request import Request
from migrate.watch import Watch

DEADLINE_S = 10.0
REQUEST = Request(pid=7, host="b")


def link_over(sock: socket.socket, role: str) -> Link:
    descriptor = sock.detach()
    return Link(FdStream(descriptor, descriptor), role=role)


@pytest.fixture
def pair() -> Iterator[tuple[Link, Link]]:
    a, b = socket.socketpair()
    links = link_over(a, "destination"), link_over(b, "origin")
    yield links
    for link in links:
        link.close()


def of_the_system(directory: Path) -> MigrateError:
    """What a system call says of a file whose name is no text."""
    with pytest.raises(MigrateError) as caught, problems.step("dump", "origin"):
        os.stat(os.fsencode(directory) + b"/\xff")  # noqa: PTH116
    return caught.value


def told_of_a_rollback(pair: tuple[Link, Link], error: MigrateError) -> pb.Abort:
    """What the destination hears when a step has failed with *error*; it answers."""
    origin, destination = pair
    machine, report, let_go = Machine(), Report(outcome=Outcome.UNTOUCHED), list[str]()
    machine.touched = True
    ending = EarlyEnding(report, origin, machine, lambda: let_go.append("it"))
    with futures.ThreadPoolExecutor(1) as thread:
        failed = thread.submit(ending.failed, error)
        told = destination.expect(pb.Abort, timeout_s=DEADLINE_S)
        destination.send(pb.Aborted())
        failed.result(DEADLINE_S)
    assert (told.outcome, let_go, report.outcome) == ("ROLLED_BACK", ["it"], Outcome.ROLLED_BACK)
    return told


def test_a_rollback_says_why(pair: tuple[Link, Link], tmp_path: Path) -> None:
    told = told_of_a_rollback(pair, of_the_system(tmp_path))
    assert told.reason == f"{tmp_path}/\\udcff: No such file or directory"


@pytest.mark.parametrize("refused", [True, False])
def test_a_refusal_says_why(pair: tuple[Link, Link], tmp_path: Path, refused: bool) -> None:
    origin, destination = pair
    nothing: Any = None
    error = of_the_system(tmp_path)
    raised = Refused([Reason("x", "origin", str(error), "y")]) if refused else error
    session = Session(REQUEST, nothing, "0123456789ab", nothing, nothing, origin, nothing, ("", ""), nothing)
    with pytest.raises(MigrateError) as caught, told_of_refusal(session):
        raise raised
    assert caught.value is raised
    assert (
        destination.expect(pb.Goodbye, timeout_s=DEADLINE_S).reason
        == f"{tmp_path}/\\udcff: No such file or directory"
    )


def test_as_much_as_is_kept_of_a_text(pair: tuple[Link, Link]) -> None:
    assert len(told_of_a_rollback(pair, MigrateError("\udcff" * MOST_TEXT)).reason) == MOST_TEXT


def test_what_whoever_undoes_needs_is_there_as_a_whole_or_not_at_all(
    pair: tuple[Link, Link], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guardian that cannot be started leaves no journal here, and only the destination has something to undo."""
    monkeypatch.setattr(place, "STATE", tmp_path / "migrate")
    monkeypatch.setattr(prepare, "_capture", lambda *_: (caught, caught))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    it: Any = None
    caught: Any = SimpleNamespace(descriptors=lambda: [], stop=lambda: stopped.append(True))
    stopped, report = list[bool](), Report(outcome=Outcome.UNTOUCHED)
    account = Account(report, it, it)
    reach = SimpleNamespace(as_json=dict)
    session: Any = SimpleNamespace(
        account=account,
        link=pair[0],
        watch=Watch(),
        migration_id="0123456789ab",
        reach=reach,
        machine=Machine(),
    )
    plan: Any = SimpleNamespace(container=None)
    move = Move.begin(REQUEST, it, session, plan)
    with pytest.raises(FileNotFoundError) as caught_error, move.ours:
        prepare._begun(move)
    assert (stopped, [*place.STATE.iterdir()]) == ([True], [])
    with futures.ThreadPoolExecutor(1) as thread:
        failed = thread.submit(move.ends.failed, caught_error.value)
        assert pair[1].expect(pb.Abort, timeout_s=DEADLINE_S).outcome == "UNTOUCHED"
        pair[1].send(pb.Aborted())
        failed.result(DEADLINE_S)
    assert report.outcome is Outcome.UNTOUCHED
