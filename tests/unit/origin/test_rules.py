"""What the origin says, waits for or journals beside the row under way is told: its link and its journal look."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from migrate import place, transport
from migrate.events import log
from migrate.journal.reach import Reach
from migrate.link import speech
from migrate.link.link import Link
from migrate.link.stream import FdStream
from migrate.machine import Machine
from migrate.origin import prepare, session
from migrate.origin.account import Account
from migrate.origin.rules import Rules
from migrate.pb import session_pb2 as pb
from migrate.recovery.entries import Freezer, Images, Isolation
from migrate.report.report import Outcome, Report
from migrate.report.timeline import Timeline
from migrate.request import Request

DEADLINE_S = 10.0
ID = "0123456789ab"
REQUEST = Request(pid=7, host="there")


class AgentStream(FdStream):
    """What a transport gives, over one end of a socket pair."""

    ends, sudo = ("", ""), False

    def __init__(self, sock: socket.socket) -> None:
        descriptor = sock.detach()
        super().__init__(descriptor, descriptor)

    def explain(self) -> None:
        """Nothing is known of its end."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What was told instead of refused."""
    said: list[str] = []
    monkeypatch.setattr(log, "unexpected", said.append)
    monkeypatch.setattr(place, "STATE", tmp_path / "migrate")
    return said


@pytest.fixture
def ends() -> Iterator[tuple[AgentStream, Link]]:
    """The origin's end of a stream, and the destination's link at the other one."""
    a, b = socket.socketpair()
    ours, theirs = AgentStream(a), Link(AgentStream(b), role="origin")
    yield ours, theirs
    theirs.close()
    ours.close()


def test_a_link_looks_at_the_row(told: list[str], ends: tuple[AgentStream, Link]) -> None:
    stream, destination = ends
    machine = Machine()
    link = Link(stream, rules=Rules(machine))
    machine.make_ready("prepare")
    link.send(pb.Prepare())
    destination.expect(pb.Prepare, timeout_s=DEADLINE_S)
    destination.send(pb.Prepared())
    link.expect(pb.Prepared, timeout_s=DEADLINE_S)
    assert told == []
    link.send(pb.Restore())  # done all the same
    destination.expect(pb.Restore, timeout_s=DEADLINE_S)
    destination.send(pb.Restored())
    link.expect(pb.Restored, timeout_s=DEADLINE_S)
    assert told == ["sent in the step prepare: restore", "waited for in the step prepare: restored"]
    link.close()


def test_the_link_of_a_session_does(
    told: list[str], ends: tuple[AgentStream, Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, destination = ends
    monkeypatch.setattr(transport, "find", lambda _: SimpleNamespace(open=lambda _: stream))
    destination.send(speech.hello(ID, hostname="there", boot_id="", logged=False, asked_by=""))
    told_nobody: Any = SimpleNamespace(phase_begin=lambda *_: None, phase_end=lambda _: None)
    account = Account(Report(outcome=Outcome.UNTOUCHED), told_nobody, Timeline(time.monotonic))
    with session.opened(REQUEST, account) as begun:
        assert told == []
        begun.link.send(pb.Commit())
        assert told == ["sent in the step connect: commit"]
        begun.machine.make_ready("prepare")
        begun.link.send(pb.Prepare())  # the row is that of the session's machine, wherever it is
        assert len(told) == 1


def test_the_journal_of_a_migration_does(told: list[str]) -> None:
    machine = Machine()
    machine.make_ready("prepare")
    move: Any = SimpleNamespace(
        request=REQUEST,
        session=SimpleNamespace(reach=Reach(host="there")),
        plan=SimpleNamespace(container=None),
        migration_id=ID,
        machine=machine,
    )
    journal = prepare._journal(move)
    journal.did(Images("/a"))
    journal.did(Isolation(ID))
    assert told == []
    journal.did(Freezer("/b"))
    assert told == ["journalled in another step, or order: freezer"]
    machine.begin()
    journal.did(Freezer("/b"))
    assert len(told) == 1
    journal.remove()
