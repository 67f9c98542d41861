"""What the three examples share beside handing over: a connection, a server, the command line."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from redirect import Redirect, Taker

import tcpcp.aio

State = dict[str, Any]
#: Serves a connection to its end. It is cancelled at an ``await`` to be started again, here or elsewhere.
Application = Callable[["Connection"], Coroutine[Any, Any, None]]

ENDS = (OSError, EOFError, ValueError, asyncio.LimitOverrunError)

_running: set[asyncio.Task[Any]] = set()


class Connection:
    """A client's connection, and the task that serves it.

    :ivar state: what the application must know to go on, beside what is in the streams, as JSON can say it.
    :ivar finished: the application is done, or the connection is on another host.
    :ivar ended: done when the peer has got everything, too.
    """

    def __init__(self, streams: tcpcp.aio.Streams, application: Application, state: State) -> None:
        self.application, self.state, self.finished = application, state, False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.peer = streams[1].get_extra_info("peername")[:2]
        self.start(streams)

    def start(self, streams: tcpcp.aio.Streams) -> None:
        """Go on with :attr:`state`."""
        self.streams = self.reader, self.writer = streams
        self.sock = self.writer.get_extra_info("socket")
        self.task = in_background(self._run())

    async def _run(self) -> None:
        with contextlib.suppress(*ENDS):
            await self.application(self)
        self.finished = True
        with contextlib.suppress(OSError):
            self.writer.write_eof()
        # What is queued needs the peer's acknowledgements: until then its packets must come here.
        while not self.writer.is_closing() and not self._has_all():
            await asyncio.sleep(0.1)
        self.writer.close()
        self.ended.set_result(None)

    def _has_all(self) -> bool:
        state = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return state in (tcpcp.State.CLOSE, tcpcp.State.FIN_WAIT2)

    def can_go(self) -> bool:
        """Whether it can be passed to another host."""
        try:
            if not self.finished and not self.writer.is_closing():
                tcpcp.inspect(self.sock)
                return True
        except tcpcp.TcpcpError:
            pass
        return False

    def leave(self) -> None:
        """The connection is on another host now: nothing is left to be done here."""
        self.finished = True
        self.ended.set_result(None)


async def stop(connections: Sequence[Connection]) -> None:
    """Leave *connections* alone until they are started again."""
    for one in connections:
        one.task.cancel()
    await asyncio.wait([one.task for one in connections])


async def serve(
    services: Sequence[str], port: int, network: Redirect, application: Application, state: State
) -> None:
    """Serve clients on each of *services* until a signal comes, beginning with a copy of *state* each."""
    tcpcp.prepare()  # up to 0.1 s, which else the first clients to be passed on would wait
    await network.open()

    def accepted(*streams: *tcpcp.aio.Streams) -> None:
        Connection(streams, application, dict(state))

    await asyncio.start_server(accepted, services, port, backlog=512)
    print("listening", flush=True)
    await stopped()
    await network.close()


def parsers(doc: str) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser, argparse.ArgumentParser]:
    """The command line: all of it, its ``serve`` and its ``take``, to which an example adds its own."""
    whole = argparse.ArgumentParser(description=doc.splitlines()[0])
    roles = whole.add_subparsers(dest="role", required=True)
    front, taker = roles.add_parser("serve", help="the front"), roles.add_parser("take", help="a taker")
    for one in (front, taker):
        one.add_argument(
            "--service", action="append", required=True, metavar="ADDRESS", help="may be repeated"
        )
    front.add_argument("--port", type=int, default=8080, help="of the service")
    front.add_argument("--to", type=Taker.parse, action="append", required=True, metavar="HOST:PORT")
    front.add_argument("--ingress", default="eth0", help="interface to the clients")
    front.add_argument("--egress", default="eth0", help="interface to the takers")
    taker.add_argument("--at", required=True, metavar="HOST:PORT", help="where connections are handed over")
    return whole, front, taker


def in_background(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Do *work* beside everything else; the event loop alone would forget it."""
    task = asyncio.create_task(work)
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task


async def stopped() -> None:
    """Returns on SIGTERM or SIGINT."""
    signalled = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signalled.set)
    await signalled.wait()
