"""`migrate-agent`: what the driver starts on the destination over SSH. Speaks on standard input and output.

The order of messages is that of :mod:`migrate.order`. Anything else ends the session; whatever was begun is
undone first, unless COMMIT had arrived.

It says hello before it loads what does the work, which takes the most of its start (0.2 of 0.3 s, and many times
that on a slow machine): until then the driver knows of no agent, from then on of one that pings.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from migrate import environment, limits, order, place
from migrate.errors import CriuError, FilterLost, MigrateError, ProtocolError, SwitchError, TransportError
from migrate.journal.reach import boot_id
from migrate.link import failure
from migrate.link.frames import PROTOCOL
from migrate.link.link import Link
from migrate.link.stream import FdStream, Stream
from migrate.pb import session_pb2 as pb
from migrate.version import VERSION

if TYPE_CHECKING:  # loaded after the hello
    from migrate.destination.stages import Destination
    from tcpcp.errors import TcpcpError


class Agent:
    """One session with a driver over *stream*."""

    def __init__(self, stream: Stream) -> None:
        self._link = Link(stream, role="origin", checkpoint=self.watch)
        self._after = "hello"
        self._destination: Destination | None = None

    def serve(self) -> int:
        """Serve the driver until it says goodbye or is gone; the agent's exit status."""
        try:
            return self._serve()
        finally:
            self._link.close()

    def _serve(self) -> int:
        try:
            self._greet()
            while self._after != "goodbye":
                self._serve_one()
        except TransportError:
            self._undo()
            return 0
        except ProtocolError as error:
            self._undo()
            self._tell(error)
            return 1
        return 0

    def _serve_one(self) -> None:
        try:
            kinds = sorted(order.FOLLOWS[self._after])
            kind, message = self._link.receive_kind(*kinds, timeout_s=limits.PATIENCE_S)
        except (CriuError, SwitchError, FilterLost) as error:  # found by watch()
            self._fail("restore", error)
        else:
            self._take(kind, message)

    def watch(self) -> None:
        """Called now and then while we wait for the driver. :raises CriuError: CRIU is gone."""
        if self._destination is not None:
            self._destination.watch()

    def _called_off(self) -> None:
        """While we work for the driver. :raises MigrateError: it is gone, or has told us to undo."""
        if self._link.error is not None:
            raise self._link.error
        if self._link.has("abort"):
            raise MigrateError("the origin has called it off", phase="abort", role="destination")

    def _greet(self) -> None:
        hello = self._link.expect(pb.Hello, timeout_s=limits.DRIVER_HELLO_S)
        name = os.uname().nodename
        self._link.send(
            pb.Hello(
                protocol=PROTOCOL,
                version=VERSION,
                migration_id=hello.migration_id,
                hostname=name,
                boot_id=boot_id(),
            )
        )
        if not place.valid_id(hello.migration_id):
            raise ProtocolError("not a migration's id", phase="session", role="destination")
        from migrate.destination.stages import Destination
        from migrate.recovery import settle

        settle.sweep(lambda _: None)
        self._destination = Destination(hello.migration_id, hello.hostname, self._called_off)

    def _take(self, kind: str, message: Any) -> None:
        from migrate.link import message_checks
        from tcpcp.errors import TcpcpError

        if self._after == order.FAILED and kind not in (order.ABORT, order.GOODBYE):
            return
        message_checks.check(message)
        try:
            reply = self._handlers[kind](message)
        except (MigrateError, TcpcpError, OSError) as error:
            if isinstance(error, (TransportError, ProtocolError)):
                raise
            self._fail(kind, error)
            return
        if kind not in order.MEANWHILE:
            self._after = kind
        if reply is not None:
            self._link.send(reply)

    @property
    def _handlers(self) -> dict[str, Callable[[Any], Any]]:
        here = self._destination
        assert here is not None
        return {
            "ask": self._where,
            "process": self._answer,
            "prepare": self._prepare,
            "compare": here.compare,
            "copy": here.copy,
            "image": here.take,
            "restore": here.restore,
            "switch": self._switch,
            "commit": lambda _: here.commit(),
            "gap": here.gap,
            "abort": self._abort,
            "goodbye": self._goodbye,
        }

    @staticmethod
    def _where(question: pb.Ask) -> pb.Answer:
        from migrate.recovery import whereabouts

        return whereabouts.find(question.migration_id, question.wait_ms / 1000)

    @staticmethod
    def _answer(process: pb.ProcessInventory) -> pb.HostInventory:
        from migrate.inventory import answer

        return answer(process)

    def _prepare(self, request: pb.Prepare) -> pb.Prepared:
        assert self._destination is not None
        self._destination.prepare(request)
        return pb.Prepared()

    def _switch(self, _: pb.Switch) -> pb.Switched:
        assert self._destination is not None
        self._destination.switch()
        return pb.Switched()

    def _abort(self, _: pb.Abort) -> pb.Aborted:
        assert self._destination is not None
        undone, problems = self._destination.abort()
        return pb.Aborted(undone=undone, problems=problems, packets=self._destination.caught)

    def _goodbye(self, _: pb.Goodbye) -> pb.Goodbye:
        assert self._destination is not None
        if self._destination.committed:
            self._destination.end()
        return pb.Goodbye()

    def _fail(self, phase: str, error: MigrateError | TcpcpError | OSError) -> None:
        """Undo, then say what went wrong, so that the driver hears of it when all is clean."""
        told = failure.to_failure(error, phase)
        told.log_tail.extend(self._undo())
        told.not_here = self._destination is None or self._destination.not_here
        told.phases.extend(self._destination.phases if self._destination is not None else [])
        self._after = order.FAILED
        self._link.send(told)

    def _undo(self) -> list[str]:
        if self._destination is None:
            return []
        if self._destination.committed:
            return self._destination.settle()
        return self._destination.abort()[1]

    def _tell(self, error: MigrateError) -> None:
        try:
            self._link.send(failure.to_failure(error))
        except MigrateError:  # what ended the link: perhaps this very error
            return


def main(argv: list[str] | None = None) -> int:
    """``migrate-agent``: takes no arguments but ``--version``."""
    closed = environment.prepare(again=argv is None)
    arguments = sys.argv[1:] if argv is None else argv
    if arguments == ["--version"]:
        print(VERSION)
        return 0
    if arguments or closed & {0, 1} or os.isatty(0):
        print("migrate-agent is started by migrate over SSH and takes no arguments", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    return Agent(FdStream.from_stdio()).serve()


if __name__ == "__main__":
    sys.exit(main())
