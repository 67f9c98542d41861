"""A dispatcher reads each client's first request and assigns the connection to one of several workers.

``serve`` is the dispatcher: it reads ``GET /login?user=NAME``, decides which worker has that user, and passes
the connection on, with the greeting still to be sent. At that moment the client waits for an answer and
sends nothing, so nothing of the connection is under way while it is isolated. All further requests are
answered by the worker (``take``), who keeps what it knows of its users in memory. A worker that does not
take a connection is passed over; when none does, the dispatcher answers the client itself.
"""

from __future__ import annotations

import asyncio
import socket
import zlib
from collections import Counter
from collections.abc import Sequence
from urllib.parse import SplitResult, parse_qs, urlsplit

from common import Connection, in_background, parsers, serve
from handing import hand_over, take
from redirect import Redirect, Taker

#: Who logged in, or ""; what is still to be said.
FRESH = {"user": "", "answer": ""}


class Worker:
    """The application; it counts how many requests each user has made to this host."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()

    async def serve(self, client: Connection) -> None:
        """Say what is to be said, wait for a request, and again."""
        while True:
            await self.before_answer(client)
            client.writer.write(client.state["answer"].encode("latin-1", "replace"))
            client.state["answer"] = ""
            await client.writer.drain()
            request = await client.reader.readuntil(b"\r\n\r\n")
            self._answer(client, urlsplit((request.decode("latin-1").split() + ["", ""])[1]))

    async def before_answer(self, client: Connection) -> None:
        """A worker answers at once."""

    def logged_in(self, client: Connection) -> None:
        """A worker is content with it."""

    def _answer(self, client: Connection, url: SplitResult) -> None:
        """Greet who logs in, else count the request."""
        login = parse_qs(url.query).get("user") if url.path == "/login" else None
        if login:
            client.state["user"] = login[0]
            client.state["answer"] = _reply(f"welcome, {login[0]}")
            self.logged_in(client)
            return
        user = client.state["user"]
        self.requests[user] += 1
        by = f"answered by {socket.gethostname()}"
        answer = f"{url.path}: request {self.requests[user]} of {user or 'somebody'}, {by}"
        client.state["answer"] = _reply(answer)


def _reply(text: str) -> str:
    return f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(text) + 1}\r\n\r\n{text}\n"


class Dispatcher(Worker):
    """A worker that assigns to others whoever logs in."""

    def __init__(self, workers: Sequence[Taker], network: Redirect) -> None:
        super().__init__()
        self.workers, self.network = workers, network
        #: Set when it is decided who answers a client.
        self.decided: dict[Connection, asyncio.Event] = {}

    def logged_in(self, client: Connection) -> None:
        """The answer is left to a worker."""
        self.decided[client] = asyncio.Event()
        in_background(self._assign(client))

    async def before_answer(self, client: Connection) -> None:
        """Here it waits, to be stopped where a worker takes it."""
        if client in self.decided:
            await self.decided[client].wait()

    async def _assign(self, client: Connection) -> None:
        """To the worker of its user, or else to the next one, or else to ourselves."""
        first = zlib.crc32(client.state["user"].encode())
        for number in range(len(self.workers)):
            worker = self.workers[(first + number) % len(self.workers)]
            if await hand_over([client], worker, self.network):
                break
        self.decided.pop(client).set()


def main() -> None:
    """Run as ``serve`` or ``take``."""
    whole, _, _ = parsers(__doc__)
    options = whole.parse_args()
    if options.role == "take":
        asyncio.run(take(options.at, options.service, Worker().serve))
        return
    network = Redirect(options.service, options.port, options.ingress, options.egress)
    dispatcher = Dispatcher(options.to, network)
    asyncio.run(serve(options.service, options.port, network, dispatcher.serve, FRESH))


if __name__ == "__main__":
    main()
