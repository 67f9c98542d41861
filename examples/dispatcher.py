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
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from common import HttpConnection, State, in_background, parsers, serve
from handing import hand_over, take
from redirect import Redirect, Taker


class Session(HttpConnection):
    """A client's connection.

    :ivar user: who logged in on it, or "".
    :ivar answer: what is not yet written.
    :ivar assigning: it is being decided who answers.
    """

    #: How many requests each user has made to this host.
    requests: Counter[str] = Counter()

    def __init__(self, sock: socket.socket, logged_in: Callable[[Session], None]) -> None:
        super().__init__(sock)
        self.logged_in = logged_in
        self.user, self.answer = "", b""
        self.assigning = False

    @classmethod
    def resumed(cls, sock: socket.socket, state: State) -> Session:
        """Go on where the dispatcher was."""
        self = cls(sock, lambda _: None)
        self.user = str(state["user"])
        self.unread, self.answer = state["unread"].encode("latin-1"), state["answer"].encode("latin-1")
        return self

    def state(self) -> State:
        """Who it is, and the bytes that are neither in the kernel nor dealt with."""
        unread, answer = self.unread.decode("latin-1"), self.answer.decode("latin-1")
        return {"user": self.user, "unread": unread, "answer": answer}

    def start(self) -> None:
        """Answer, or wait for a request."""
        if self.assigning:
            return
        if self.answer:
            self.loop.add_writer(self.sock, self._write)
        else:
            self.wait_for_request()

    def answer_to(self, request: str) -> None:
        """Greet who logs in, else count the request."""
        self.stop()
        url = urlsplit((request.split(None, 2) + ["", ""])[1])
        login = parse_qs(url.query).get("user") if url.path == "/login" else None
        if login:
            self.user = login[0]
            self._reply(f"welcome, {self.user}")
            self.logged_in(self)
        else:
            self.requests[self.user] += 1
            count, host = self.requests[self.user], socket.gethostname()
            self._reply(f"{url.path}: request {count} of {self.user or 'somebody'}, answered by {host}")
        self.start()

    def _reply(self, text: str) -> None:
        body = f"{text}\n"
        length = len(body.encode("latin-1", "replace"))
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
        self.answer = (head + body).encode("latin-1", "replace")

    def _write(self) -> None:
        try:
            self.answer = self.answer[self.sock.send(self.answer) :]
        except BlockingIOError:
            return
        except OSError:
            self.finish()
            return
        if not self.answer:
            self.stop()
            self.start()


async def assign(session: Session, workers: list[Taker], network: Redirect) -> None:
    """Pass *session* to the worker of its user, or else to the next one, or else keep it."""
    first = zlib.crc32(session.user.encode())
    for number in range(len(workers)):
        worker = workers[(first + number) % len(workers)]
        if session in await hand_over([session], worker, network):
            return
    session.assigning = False
    session.start()


def main() -> None:
    """Run as ``serve`` or ``take``."""
    whole, _, _ = parsers(__doc__)
    options = whole.parse_args()
    if options.role == "take":
        host, port = options.at.rsplit(":", 1)
        asyncio.run(take(host, int(port), options.service, Session.resumed))
        return
    network = Redirect(options.service, options.port, options.ingress, options.egress)

    def logged_in(session: Session) -> None:
        session.assigning = True
        in_background(assign(session, options.to, network))

    def accepted(sock: socket.socket) -> None:
        Session(sock, logged_in).start()

    asyncio.run(serve(options.service, options.port, network, accepted))


if __name__ == "__main__":
    main()
