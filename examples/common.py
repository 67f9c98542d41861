"""What the three examples share beside handing over: a connection, a listener, the command line."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from redirect import Peer, Redirect, Taker

import tcpcp

State = dict[str, Any]

MAX_REQUEST_BYTES = 16384

_running: set[asyncio.Task[None]] = set()


class Connection:
    """One connection of an application, driven by callbacks of the event loop.

    Between two callbacks it is at rest: what it knows is in attributes. :meth:`state` is the part of them
    that goes to the taker, beside what the kernel knows.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.loop = asyncio.get_running_loop()
        self.finished = False
        self.ended: asyncio.Future[None] = self.loop.create_future()
        host, port = sock.getpeername()[:2]
        self.peer: Peer = (host, port)

    def start(self) -> None:
        """Go on; the first time, or after :meth:`stop`."""
        raise NotImplementedError

    def stop(self) -> None:
        """Leave the socket alone until :meth:`start`."""
        self.loop.remove_reader(self.sock)
        self.loop.remove_writer(self.sock)

    def state(self) -> State:
        """What the taker must know to go on, as JSON can say it."""
        raise NotImplementedError

    def leave(self) -> None:
        """The connection is on another host now: nothing is left to be done here."""
        self.finished = True
        self.ended.set_result(None)

    def finish(self) -> None:
        """The application is done; :attr:`ended` is done when the peer has got everything."""
        if self.finished:
            return
        self.finished = True
        self.stop()
        with contextlib.suppress(OSError):  # the peer has reset it
            self.sock.shutdown(socket.SHUT_WR)
        self._close_when_done()

    def _close_when_done(self) -> None:
        """What is queued needs the peer's acknowledgements: until then its packets must come here."""
        state = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if state in (tcpcp.State.CLOSE, tcpcp.State.FIN_WAIT2):
            self.sock.close()
            self.ended.set_result(None)
        else:
            self.loop.call_later(0.1, self._close_when_done)


class HttpConnection(Connection):
    """A connection on which a client sends HTTP requests.

    :ivar unread: what has been read and is not dealt with yet.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.unread = b""

    def answer_to(self, request: str) -> None:
        """Deal with a complete request, of which the empty line at its end is left out."""
        raise NotImplementedError

    def wait_for_request(self) -> None:
        """Deal with the next request, now or when all of it is here."""
        self.loop.add_reader(self.sock, self._read)
        self._take_request()

    def _read(self) -> None:
        try:
            data = self.sock.recv(MAX_REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.unread += data
        if not data or len(self.unread) > MAX_REQUEST_BYTES:
            self.finish()
        else:
            self._take_request()

    def _take_request(self) -> None:
        request, end, rest = self.unread.partition(b"\r\n\r\n")
        if end:
            self.unread = rest
            self.answer_to(request.decode("latin-1"))


async def serve(
    services: Sequence[str], port: int, network: Redirect, accepted: Callable[[socket.socket], None]
) -> None:
    """Listen on each of *services* and call *accepted* with every new connection, until a signal comes."""
    await network.open()
    loop = asyncio.get_running_loop()
    for service in services:
        listener = socket.create_server((service, port), family=_family(service), backlog=512)
        listener.setblocking(False)
        loop.add_reader(listener, _accept, listener, accepted)
    print("listening", flush=True)
    await stopped()
    await network.close()


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _accept(listener: socket.socket, accepted: Callable[[socket.socket], None]) -> None:
    with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
        accepted(listener.accept()[0])


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


def in_background(work: Coroutine[Any, Any, Any]) -> None:
    """Do *work* beside everything else; the event loop alone would forget it."""
    task = asyncio.create_task(work)
    _running.add(task)
    task.add_done_callback(_running.discard)


async def stopped() -> None:
    """Returns on SIGTERM or SIGINT."""
    signalled = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signalled.set)
    await signalled.wait()
