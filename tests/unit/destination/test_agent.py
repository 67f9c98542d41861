"""A session of the agent, from its hello on, over a real link; what it does with a migration is elsewhere."""

from __future__ import annotations

import contextlib
import errno
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from migrate import place, problems
from migrate.destination import agent
from migrate.destination.destination import Destination
from migrate.errors import CriuError, MigrateError, ProtocolError, TransportError
from migrate.link.link import Link
from migrate.link.speech import NEWEST
from migrate.link.stream import FdStream
from migrate.pb import session_pb2 as pb
from tcpcp.errors import IsolationError

DEADLINE_S = 10.0
ID = "0123456789ab"


class Session:
    """A driver's link to an agent in a thread, and the agent's exit status."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.link = Link(FdStream(fd := ours.detach(), fd))
        self.status: int | None = None
        stream = FdStream(fd := theirs.detach(), fd)
        self._thread = threading.Thread(target=self._serve, args=(stream,))
        self._thread.start()

    def _serve(self, stream: FdStream) -> None:
        self.status = agent.serve(stream)

    def ended(self) -> int | None:
        """Wait for the agent's end; its status."""
        self._thread.join(DEADLINE_S)
        return self.status


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Session]:
    monkeypatch.setattr(place, "STATE", tmp_path)
    with contextlib.closing((made := Session()).link):
        yield made
    assert made.ended() is not None


def greet(session: Session, migration_id: str = ID) -> pb.Hello:
    session.link.send(pb.Hello(protocol=NEWEST, migration_id=migration_id, hostname="origin"))
    return session.link.expect(pb.Hello, timeout_s=DEADLINE_S)


def test_what_does_the_work_is_loaded_after_the_hello() -> None:
    """It takes the most of the start, and until the hello the driver knows of no agent."""
    script = "import sys, migrate.destination.agent; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"tcpcp", "tcpcp.endpoint", "migrate.destination.destination", "migrate.recovery.undo"} & {
        *loaded
    }
    assert "migrate.order" in loaded


def test_hello_and_goodbye(session: Session) -> None:
    assert greet(session).protocol == NEWEST
    session.link.send(pb.Goodbye())
    session.link.expect(pb.Goodbye, timeout_s=DEADLINE_S)
    assert session.ended() == 0


def test_a_driver_that_goes_before_its_hello(session: Session) -> None:
    session.link.close()
    assert session.ended() == 0


def test_a_driver_that_goes_after_it(session: Session) -> None:
    greet(session)
    session.link.close()
    assert session.ended() == 0


@pytest.mark.parametrize("migration_id", ["", "../../etc", "0123456789AB"])
def test_an_id_that_is_none(session: Session, migration_id: str) -> None:
    greet(session, migration_id)
    with pytest.raises(ProtocolError, match="not a migration's id"):
        session.link.receive("host", timeout_s=DEADLINE_S)
    assert session.ended() == 1


def test_no_hello(session: Session) -> None:
    session.link.send(pb.Commit())
    with pytest.raises(ProtocolError, match="sent commit where hello was expected"):
        session.link.receive("hello", timeout_s=DEADLINE_S)
    assert session.ended() == 1


def test_a_message_out_of_order(session: Session) -> None:
    greet(session)
    session.link.send(pb.Commit())
    with pytest.raises(ProtocolError, match="sent commit where"):
        session.link.receive("activated", timeout_s=DEADLINE_S)
    assert session.ended() == 1


def fails_once(error: Exception) -> Callable[[Destination], None]:
    left = [error]

    def look(_: Destination) -> None:
        if left:
            raise left.pop()

    return look


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (CriuError("it is gone", hint="h"), "h"),
        (IsolationError("nft refused the batch"), "nft list ruleset"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
    ],
)
def test_what_it_finds_while_it_waits_is_told(
    session: Session, error: Exception, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is, with its remedy; the session goes on, so that the driver can say how it ended."""
    monkeypatch.setattr(Destination, "watch", fails_once(error))
    greet(session)
    with pytest.raises(MigrateError) as caught:
        session.link.receive("host", timeout_s=DEADLINE_S)
    assert str(error) in str(caught.value) or str(caught.value) == "Too many open files"
    assert hint in caught.value.problem.hint
    assert (caught.value.problem.phase, caught.value.problem.host) == ("", "destination")
    session.link.send(pb.Goodbye())
    session.link.expect(pb.Goodbye, timeout_s=DEADLINE_S)
    assert session.ended() == 0


@pytest.mark.parametrize(("kind", "phase"), [("compare", "dump"), ("process", "check")])
def test_in_which_step_a_message_fails(
    session: Session, kind: str, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes in several has no step of its own: a question of the dump was told as one of the check."""

    def fails(_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    handlers = {"process": lambda _: None, "goodbye": lambda _: None} | {kind: fails}
    monkeypatch.setattr(Destination, "handlers", lambda _: handlers)
    greet(session)
    session.link.send(pb.ProcessInventory())
    session.link.send(pb.Compare())
    with pytest.raises(MigrateError) as caught, problems.step("dump", "origin"):
        session.link.receive("compared", timeout_s=DEADLINE_S)
    assert (caught.value.problem.phase, caught.value.problem.host) == (phase, "destination")
    session.link.send(pb.Goodbye())


def test_work_is_in_vain_when_the_driver_says_so_or_is_gone() -> None:
    ours, theirs = socket.socketpair()
    links = [Link(FdStream(fd := one.detach(), fd)) for one in (ours, theirs)]
    agent._called_off(links[0])
    links[1].send(pb.Abort())
    deadline = threading.Event()
    while not links[0].has("abort"):
        deadline.wait(0.01)
    with pytest.raises(Exception, match="called it off"):
        agent._called_off(links[0])
    links[0].expect(pb.Abort, timeout_s=DEADLINE_S)
    links[1].close()
    assert links[0].lost.wait(DEADLINE_S)
    with pytest.raises(TransportError, match="closed the connection"):
        agent._called_off(links[0])
    links[0].close()
