"""`migrate-agent`: what the driver starts on the destination over SSH. Speaks on standard input and output.

The order of messages is that of :mod:`migrate.order`. Anything else ends the session; whatever was begun is
undone first, unless COMMIT had arrived.

It says hello before it loads what does the work, which takes the most of its start (0.1 of 0.2 s, and many times
that on a slow machine): until then the driver knows of no agent, from then on of one that pings.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from migrate import environment, limits, order, place
from migrate.errors import MigrateError, ProtocolError, TransportError
from migrate.events import log
from migrate.journal.reach import boot_id
from migrate.link import failure, speech
from migrate.link.link import Link
from migrate.link.stream import FdStream, Stream
from migrate.pb import session_pb2 as pb
from migrate.version import VERSION

if TYPE_CHECKING:  # loaded after the hello
    from migrate.destination.destination import Destination


class Agent:
    """The rest of a session, when both have said hello.

    :param link: to the driver.
    :param here: the migration, of which nothing has been done yet.
    """

    def __init__(self, link: Link, here: Destination) -> None:
        self._link, self._here = link, here
        self._handlers = here.handlers()
        self._after = "hello"

    def serve(self) -> int:
        """Serve the driver until it says goodbye or is gone; the agent's exit status."""
        try:
            while self._after != "goodbye":
                self._serve_one()
        except TransportError as error:
            log.tell("link lost", why=str(error))
            self._here.settle()
            return 0
        except ProtocolError as error:
            error.stamp("session", "destination")
            log.error(error)
            self._here.settle()
            _tell(self._link, error)
            return 1
        return 0

    def _serve_one(self) -> None:
        kind, message = "", None
        with self._told(""):  # found by Destination.watch(), in whichever step the origin is
            kinds = sorted(order.FOLLOWS[self._after])
            kind, message = self._link.receive_kind(*kinds, timeout_s=limits.PATIENCE_S)
        if kind:
            self._take(kind, message)

    def _take(self, kind: str, message: Any) -> None:
        from migrate.link import message_checks

        if self._after == order.FAILED and kind not in (order.ABORT, order.GOODBYE):
            return
        message_checks.check(message)
        with self._told(order.STEP_OF.get(kind, kind)):
            self._here.takes(kind)
            reply = self._handlers[kind](message)
            if kind not in order.MEANWHILE:
                self._after = kind
            if reply is not None:
                self._link.send(reply)

    @contextlib.contextmanager
    def _told(self, phase: str) -> Iterator[None]:
        """A ``with`` block whose failure is undone and told, and the session goes on.

        :param phase: its step; "" if the origin is to say in which it was.
        :raises TransportError, ProtocolError: what ends the session does.
        """
        from migrate import problems

        try:
            with problems.step(phase, "destination"):
                yield
        except (TransportError, ProtocolError):
            raise
        except MigrateError as error:
            self._fail(error)

    def _fail(self, error: MigrateError) -> None:
        """Undo, then say what went wrong, so that the driver hears of it when all is clean."""
        log.error(error)
        told = failure.to_failure(error)
        where, left = self._here.settle()
        told.left.extend(map(failure.sendable, left))
        told.log_tail.extend(map(failure.sendable, [*filter(None, [where]), *log.problems()]))
        told.not_here = self._here.not_here
        told.phases.extend(self._here.phases)
        self._after = order.FAILED
        self._link.send(told)


def serve(stream: Stream) -> int:
    """Serve a driver over *stream*; the agent's exit status."""
    link = Link(stream, role="origin")
    try:
        hello = _greet(link)
        with log.kept(hello.migration_id, "destination", wanted=hello.logged):
            return _serve(link, hello)
    except TransportError:
        return 0
    except MigrateError as error:
        error.stamp("session", "destination")
        _tell(link, error)
        return 1
    finally:
        link.close()


def _greet(link: Link) -> pb.Hello:
    """Say hello to the driver; its hello.

    :raises TransportError, ProtocolError: it has not said hello.
    """
    hello = link.expect(pb.Hello, timeout_s=limits.DRIVER_HELLO_S)
    protocol, hostname = speech.answer(hello), os.uname().nodename
    link.speak(protocol, hello.version)
    link.send(
        speech.hello(
            hello.migration_id, hostname=hostname, boot_id=boot_id(), protocol=protocol, logged=hello.logged
        )
    )
    if not place.valid_id(hello.migration_id):
        raise ProtocolError("not a migration's id")
    return hello


def _serve(link: Link, hello: pb.Hello) -> int:
    """Load what does the work, and do it.

    :raises MigrateError: nothing can be done here; nothing was.
    """
    from migrate import problems
    from migrate.destination import chronicle
    from migrate.destination.destination import Destination
    from migrate.destination.errand import Errand
    from migrate.recovery import settle

    chronicle.began(hello)
    with problems.step("check", "destination"):
        settle.sweep(lambda _: None)
    errand = Errand(hello, functools.partial(_called_off, link))
    here = Destination(errand)
    link.checkpoint = here.watch
    status = Agent(link, here).serve()
    chronicle.ended(here, errand)
    return status


def _called_off(link: Link) -> None:
    """While we work for the driver. :raises MigrateError: it is gone, or has told us to undo."""
    if link.error is not None:
        raise link.error
    if link.has("abort"):
        raise MigrateError("the origin has called it off")


def _tell(link: Link, error: MigrateError) -> None:
    try:
        link.send(failure.to_failure(error))
    except MigrateError:  # what ended the link: perhaps this very error
        return


def main(argv: list[str] | None = None) -> int:
    """``migrate-agent``: takes no arguments but ``--version`` and ``--help``; with ``--gateway`` see there."""
    closed = environment.prepare(again=argv is None)
    log.called("migrate-agent")
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["--gateway"]:
        from migrate.switch.route import gateway

        return gateway.main(arguments[1:])
    if arguments in (["--help"], ["-h"]):
        from migrate.destination import usage

        usage.parser().print_help()
        return 0
    if arguments == ["--version"]:
        print(VERSION)
        return 0
    if arguments or closed & {0, 1} or os.isatty(0):
        print("migrate-agent is started by migrate over SSH and takes no arguments", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    return serve(FdStream.from_stdio())


if __name__ == "__main__":
    sys.exit(main())
