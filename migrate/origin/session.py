"""One session with the destination: connect, start the agent, say hello. Leaving it ends the agent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from migrate import limits, place, transport
from migrate.errors import MigrateError, ProtocolError, Refused, TransportError
from migrate.events import line, log, who
from migrate.journal.reach import Reach, boot_id
from migrate.link import failure, speech
from migrate.link.end import Lost
from migrate.link.link import Link
from migrate.link.payloads import Piece
from migrate.machine import Machine
from migrate.origin import claim
from migrate.origin.account import Account
from migrate.origin.carried_files import CarriedFiles
from migrate.origin.rules import Rules
from migrate.pb import session_pb2 as pb
from migrate.processes.oci import Container
from migrate.recovery import settle
from migrate.report.observer import Observer
from migrate.request import Request
from migrate.states import Outcome
from migrate.watch import Watch
from tcpcp.errors import TcpcpError

#: How fast files are read at the least, to be compared.
READ_BYTES_S = 20 << 20


@dataclass(frozen=True, slots=True)
class Session:
    """One that has begun, as :func:`opened` makes it.

    :ivar migration_id: the name of this migration on both hosts.
    :ivar machine: in which row of the table it is.
    :ivar watch: what the link and others that wait look at meanwhile.
    :ivar link: messages to and from the agent.
    :ivar reach: how the destination was reached.
    :ivar ends: addresses of the connection, ours and its; "" where the transport knows none.
    :ivar files: the tree's files, of which the destination needs some.
    :ivar container: if that is what is moved.
    """

    request: Request
    account: Account
    migration_id: str
    machine: Machine
    watch: Watch
    link: Link
    reach: Reach
    ends: tuple[str, str]
    files: CarriedFiles
    container: Container | None = None


@contextlib.contextmanager
def opened(request: Request, account: Account, container: Container | None = None) -> Iterator[Session]:
    """A session with an agent on the destination, which ends with the ``with`` block.

    :raises Refused: something of an earlier migration is in the way, or the agent speaks no protocol of ours.
    :raises TransportError, ProtocolError: there is no agent.
    """
    settle.clear_the_way(request.pid, account.note, claim.overlapping(request.pid))
    migration_id, machine = account.report.trace.id, Machine()
    with contextlib.ExitStack() as stack:
        with account.phase("connect"):
            met = stack.enter_context(
                greeted(request, migration_id, Rules(machine), logged=not request.check)
            )
            if met.hello.logged:
                account.report.trace.logs["destination"] = str(place.log(migration_id))
            log.tell("connected", host=met.hello.hostname, version=met.hello.version, agent=request.way.agent)
        files = _files(request, met.link, met.watch, account.observer)
        yield Session(
            request,
            account,
            migration_id,
            machine,
            met.watch,
            met.link,
            met.reach,
            met.ends,
            files,
            container,
        )


@dataclass(frozen=True, slots=True)
class Met:
    """An agent that has said hello, as :func:`greeted` meets it.

    :ivar watch, link, reach, ends: as in :class:`Session`.
    :ivar hello: what it said.
    """

    watch: Watch
    link: Link
    reach: Reach
    ends: tuple[str, str]
    hello: pb.Hello


@contextlib.contextmanager
def greeted(
    request: Request, migration_id: str, rules: Rules | None = None, *, logged: bool
) -> Iterator[Met]:
    """An agent on the destination, which ends with the ``with`` block; nothing else has been asked of it.

    :param rules: of the migration, if it is one.
    :param logged: whether it is to keep a log.
    :raises Refused: it speaks no protocol of ours.
    :raises TransportError, ProtocolError: there is none.
    """
    with contextlib.ExitStack() as stack:
        reach = Reach.of(request)
        stream = transport.find(reach.transport).open(reach)
        stack.callback(stream.close)
        watch = Watch()
        link = Link(stream, role="destination", explain=stream.explain, checkpoint=watch, rules=rules)
        stack.callback(link.close)
        link.send(_hello(migration_id, logged=logged))
        hello = _greeting(link, request)
        link.speak(speech.agreed(hello), hello.version)
        reach = reach.gone(sudo=stream.sudo, boot_id=hello.boot_id)
        yield Met(watch, link, reach, stream.ends, hello)


@contextlib.contextmanager
def told_of_refusal(session: Session) -> Iterator[None]:
    """A ``with`` block in which nothing is begun yet; if it fails, the destination's log shall say why."""
    try:
        yield
    except (MigrateError, TcpcpError, OSError) as error:
        reasons = [one.text for one in error.reasons] if isinstance(error, Refused) else [str(error)]
        with contextlib.suppress(MigrateError):
            reason = failure.sendable("; ".join(reasons))[: line.MOST_TEXT]
            session.link.send(pb.Goodbye(outcome=Outcome.UNTOUCHED.value, reason=reason))
        raise


def _hello(migration_id: str, *, logged: bool) -> pb.Hello:
    asked_by = failure.sendable(who.in_words(who.asked()))[: line.MOST_TEXT]
    name = os.uname().nodename
    return speech.hello(migration_id, hostname=name, boot_id=boot_id(), logged=logged, asked_by=asked_by)


def _greeting(link: Link, request: Request) -> pb.Hello:
    """The agent's first message; what else may come instead has nothing to do with migrate."""
    agent, host = request.way.agent, request.host
    start_s = min(limits.AGENT_START_S, request.timeout_s)
    try:
        return link.expect(pb.Hello, timeout_s=start_s)
    except ProtocolError as error:
        raise ProtocolError(
            f"what starts there as {agent} is not migrate-agent: {error}",
            hint=f"`ssh {host} {agent} --version` must print a version and nothing else. Look at --agent, and"
            " for an echo in the shell's start-up files there (~/.bashrc).",
        ) from error
    except TransportError as error:
        if not isinstance(error, Lost):  # it says why the agent has ended
            raise
        late = link.error is None
        raise TransportError(
            f"{agent} was started there and did not say hello within {start_s:g} s"
            if late
            else f"{agent} was started there and does not answer: {error}",
            hint=f"Look whether `ssh {host} {agent} --version` prints a version, and how long that takes.",
        ) from error


def _files(request: Request, link: Link, watch: Watch, observer: Observer) -> CarriedFiles:
    def tell(read_bytes: int) -> None:
        observer.progress(read_bytes, None)

    def ask(question: pb.Compare, meanwhile: Callable[[], None]) -> pb.Compared:
        link.send(question)
        meanwhile()
        reading_s = sum(file.size_bytes for file in question.files) / READ_BYTES_S
        return link.expect(pb.Compared, timeout_s=limits.ANSWER_S + reading_s)

    def send(piece: Piece) -> None:
        link.send(piece, kind="copy", timeout_s=request.timeout_s)

    copying, trees = request.along.copy_files, request.along.copy_trees
    return CarriedFiles(ask, send, copying=copying, trees=trees, checkpoint=watch, tell=tell)
