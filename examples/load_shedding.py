"""A server that has too much to do passes half of its connections to another host; clients notice nothing.

Every connection carries a numbered stream in both directions at once: the server sends 0, 1, 2, ... a line
each, every ``INTERVAL_S``, and so does the client (``numbers_client.py``). Each side ends the connection at a
number that is not the next. To the line ``end`` the server answers ``end N``, having received N numbers.

``serve`` is the server. Whenever it has more than ``--busy`` connections it passes half of them to the host
``--to``, in one batch: all of those or, if anything fails, none. ``take`` is the other host's.
"""

from __future__ import annotations

import argparse
import asyncio

from common import Connection, in_background, parsers, serve
from handing import hand_over, take
from redirect import Redirect, Taker

INTERVAL_S = 0.01
#: The next number to send, and the next one to receive.
FRESH = {"to_send": 0, "expected": 0}


class Numbers:
    """The application."""

    def __init__(self) -> None:
        #: All that run here, for the clock.
        self.running: set[Connection] = set()
        in_background(self._clock())

    async def serve(self, client: Connection) -> None:
        """Receive; the clock sends."""
        self.running.add(client)
        try:
            await self._receive(client)
        finally:
            self.running.discard(client)

    async def _receive(self, client: Connection) -> None:
        while (line := await client.reader.readline()).endswith(b"\n"):
            expected = client.state["expected"]
            if line == b"end\n":
                client.writer.write(b"end %d\n" % expected)
                return
            if line != b"%d\n" % expected:
                print(f"{client.peer} sent {line!r} instead of {expected}", flush=True)
                return
            client.state["expected"] += 1

    async def _clock(self) -> None:
        """Let all say their next number, again and again, but for those who have not even taken the last."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            for client in self.running:
                if not client.writer.transport.get_write_buffer_size():
                    client.writer.write(b"%d\n" % client.state["to_send"])
                    client.state["to_send"] += 1


class Server(Numbers):
    """Passes half of the connections away when there are more than *busy*."""

    def __init__(self, busy: int, to: Taker, network: Redirect) -> None:
        super().__init__()
        self.busy, self.to, self.network = busy, to, network
        self.shedding = False

    async def serve(self, client: Connection) -> None:
        """One more, perhaps one too many."""
        if len(self.running) >= self.busy and not self.shedding:
            self.shedding = True
            in_background(self._shed())
        await super().serve(client)

    async def _shed(self) -> None:
        try:
            await hand_over(list(self.running)[: len(self.running) // 2], self.to, self.network)
        finally:
            self.shedding = False


async def run_server(options: argparse.Namespace) -> None:
    """Until a signal comes."""
    network = Redirect(options.service, options.port, options.ingress, options.egress)
    server = Server(options.busy, options.to[0], network)
    await serve(options.service, options.port, network, server.serve, FRESH)


async def run_taker(options: argparse.Namespace) -> None:
    """Until a signal comes."""
    await take(options.at, options.service, Numbers().serve)


def main() -> None:
    """Run as ``serve`` or ``take``."""
    whole, front, _ = parsers(__doc__)
    front.add_argument("--busy", type=int, default=100, metavar="CONNECTIONS")
    options = whole.parse_args()
    asyncio.run(run_taker(options) if options.role == "take" else run_server(options))


if __name__ == "__main__":
    main()
