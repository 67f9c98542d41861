"""A server that has too much to do passes half of its connections to another host; clients notice nothing.

Every connection carries a numbered stream in both directions at once: the server sends 0, 1, 2, ... a line
each, every ``INTERVAL_S``, and so does the client (``numbers_client.py``). Each side ends the connection at a
number that is not the next. To the line ``end`` the server answers ``end N``, having received N numbers.

``serve`` is the server. Whenever it has more than ``--busy`` connections it passes half of them to the host
``--to``, in one batch: all of those or, if anything fails, none. ``take`` is the other host's.
"""

from __future__ import annotations

import asyncio
import socket

from common import Connection, State, in_background, parsers, serve
from handing import hand_over, take
from redirect import Redirect, Taker

INTERVAL_S = 0.01
MAX_LINE_BYTES = 64


class Stream(Connection):
    """A client's connection.

    :ivar to_send: the next number to send; :ivar expected: the next one to receive.
    :ivar unsent: what is said and not yet given to the kernel; :ivar unread: the begin of a line.
    """

    #: All that run here, for the clock.
    running: set[Stream] = set()

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.to_send, self.expected = 0, 0
        self.unsent = self.unread = b""

    @classmethod
    def resumed(cls, sock: socket.socket, state: State) -> Stream:
        """Go on where the other server was."""
        self = cls(sock)
        self.to_send, self.expected = int(state["to_send"]), int(state["expected"])
        self.unsent, self.unread = state["unsent"].encode(), state["unread"].encode()
        return self

    def state(self) -> State:
        """All four."""
        unsent, unread = self.unsent.decode(), self.unread.decode()
        return {"to_send": self.to_send, "expected": self.expected, "unsent": unsent, "unread": unread}

    def start(self) -> None:
        """Read, and send with the clock."""
        self.running.add(self)
        self.loop.add_reader(self.sock, self._read)

    def stop(self) -> None:
        """Neither."""
        self.running.discard(self)
        super().stop()

    def tick(self) -> None:
        """Say the next number, unless the client has not even taken the last one."""
        if not self.unsent:
            self.unsent = b"%d\n" % self.to_send
            self.to_send += 1
        self._send()

    def _send(self) -> None:
        try:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.finish()

    def _read(self) -> None:
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, self.unread = (self.unread + data).split(b"\n")
        for line in lines:
            if line == b"end":
                self.unsent += b"end %d\n" % self.expected
                self._send()
                self.finish()
                return
            if line != b"%d" % self.expected:
                print(f"{self.peer} sent {line!r} instead of {self.expected}", flush=True)
                self.finish()
                return
            self.expected += 1
        if not data or len(self.unread) > MAX_LINE_BYTES:
            self.finish()


async def clock() -> None:
    """Let all streams say their next number, again and again."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        for stream in list(Stream.running):
            stream.tick()


class Server:
    """Accepts connections, and passes half of them away when there are more than *busy*."""

    def __init__(self, busy: int, to: Taker, network: Redirect) -> None:
        self.busy, self.to, self.network = busy, to, network
        self.shedding = False

    def accepted(self, sock: socket.socket) -> None:
        """One more."""
        Stream(sock).start()
        if len(Stream.running) > self.busy and not self.shedding:
            self.shedding = True
            in_background(self._shed())

    async def _shed(self) -> None:
        half = list(Stream.running)[: len(Stream.running) // 2]
        try:
            await hand_over(half, self.to, self.network)
        finally:
            self.shedding = False

    async def run(self, services: list[str], port: int) -> None:
        """Until a signal comes."""
        in_background(clock())
        await serve(services, port, self.network, self.accepted)


async def take_streams(at: str, services: list[str]) -> None:
    """What another host passes away, until a signal comes."""
    in_background(clock())
    host, port = at.rsplit(":", 1)
    await take(host, int(port), services, Stream.resumed)


def main() -> None:
    """Run as ``serve`` or ``take``."""
    whole, front, _ = parsers(__doc__)
    front.add_argument("--busy", type=int, default=100, metavar="CONNECTIONS")
    options = whole.parse_args()
    if options.role == "take":
        asyncio.run(take_streams(options.at, options.service))
        return
    network = Redirect(options.service, options.port, options.ingress, options.egress)
    asyncio.run(Server(options.busy, options.to[0], network).run(options.service, options.port))


if __name__ == "__main__":
    main()
