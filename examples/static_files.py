"""A web server of static files that hands downloads over in their middle to another host.

As in section 1 of the paper, the application's own state is the name of the file and the position in it; the
second server opens its own copy of the file and continues from there. The client's one connection, and its
one download, go on.

``serve`` is the server that clients connect to. A download that has come to ``--pass-after`` bytes is handed
to the host ``--to``; where that cannot be, it goes on here. ``take`` is the second server. Both know
persistent connections and pipelined requests; a connection between two requests would be passed on as well.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from common import HttpConnection, State, in_background, parsers, serve
from handing import hand_over, take
from redirect import Redirect

CHUNK_BYTES = 1 << 18
#: What the kernel takes from us and has not sent goes along in the ICI; more than this helps nobody.
UNSENT_BYTES = 1 << 18
TCP_NOTSENT_LOWAT = 25


class Download(HttpConnection):
    """A client's connection, on which it downloads one file after the other.

    :ivar head: what is not yet written of the answer's head.
    :ivar name: of the file on its way, "" between two; :ivar position: what of it is written.
    :ivar size: of the file, in bytes.
    """

    def __init__(self, sock: socket.socket, directory: Path) -> None:
        super().__init__(sock)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self.directory = directory
        self.head = b""
        self.name, self.position, self.size = "", 0, 0
        self.file: BinaryIO | None = None
        self.on_progress: Callable[[Download], None] = lambda _: None
        self.ended.add_done_callback(lambda _: self.close_file())

    @classmethod
    def resumed(cls, sock: socket.socket, directory: Path, state: State) -> Download:
        """Go on where another server was.

        :raises OSError: the file is not here. :raises ValueError: it is not the same.
        """
        self = cls(sock, directory)
        self.unread, self.head = state["unread"].encode("latin-1"), state["head"].encode("latin-1")
        if state["name"]:
            self.open(state["name"])
            self.position = int(state["position"])
            if self.size != state["size"] or not 0 <= self.position <= self.size:
                self.close_file()
                raise ValueError(f"{state['name']} has {self.size} bytes here, not {state['size']}")
        return self

    def state(self) -> State:
        """All attributes but the file itself, which the taker has a copy of."""
        return {
            "unread": self.unread.decode("latin-1"),
            "head": self.head.decode("latin-1"),
            "name": self.name,
            "position": self.position,
            "size": self.size,
        }

    def start(self) -> None:
        """Answer, or wait for a request."""
        if self.head or self.name:
            self.loop.add_writer(self.sock, self._write)
        else:
            self.wait_for_request()

    def open(self, name: str) -> None:
        """Make *name* the file on its way. :raises OSError: there is no such file."""
        path = (self.directory / name).resolve()
        if not path.is_relative_to(self.directory) or not path.is_file():
            raise FileNotFoundError(f"no file {name!r}")
        self.file = path.open("rb")
        self.name, self.position, self.size = name, 0, path.stat().st_size

    def close_file(self) -> None:
        """There is no file on its way any more."""
        if self.file:
            self.file.close()
        self.file, self.name = None, ""

    def answer_to(self, request: str) -> None:
        """Begin with the head; the file follows."""
        words = request.split(None, 2)
        try:
            if words[0] != "GET":
                raise FileNotFoundError
            self.open(words[1].lstrip("/"))
            self.head = f"HTTP/1.1 200 OK\r\nContent-Length: {self.size}\r\n\r\n".encode()
        except (OSError, IndexError):
            self.head = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        self.stop()
        self.start()

    def _write(self) -> None:
        """Give the kernel what it takes; the position counts exactly that."""
        try:
            if self.head:
                self.head = self.head[self.sock.send(self.head) :]
            elif self.file and self.position < self.size:
                left = min(self.size - self.position, CHUNK_BYTES)
                sent = os.sendfile(self.sock.fileno(), self.file.fileno(), self.position, left)
                if not sent:
                    raise ConnectionAbortedError("the file became shorter")
                self.position += sent
                self.on_progress(self)
        except BlockingIOError:
            return
        except OSError:
            self.finish()
            return
        if not self.head and self.position == self.size:
            self.close_file()
            self.stop()
            self.start()


def main() -> None:
    """Run as ``serve`` or ``take``."""
    whole, front, taker = parsers(__doc__)
    for one in (front, taker):
        one.add_argument("--directory", type=lambda text: Path(text).resolve(), required=True)
    front.add_argument("--pass-after", type=int, default=1 << 20, metavar="BYTES", help="of a download")
    options = whole.parse_args()
    if options.role == "take":
        host, port = options.at.rsplit(":", 1)
        resumed = lambda sock, state: Download.resumed(sock, options.directory, state)  # noqa: E731
        asyncio.run(take(host, int(port), options.service, resumed))
        return
    network = Redirect(options.service, options.port, options.ingress, options.egress)

    def progress(download: Download) -> None:
        if download.position >= options.pass_after:
            download.on_progress = lambda _: None  # once is enough, even if nobody takes it
            in_background(hand_over([download], options.to[0], network))

    def accepted(sock: socket.socket) -> None:
        download = Download(sock, options.directory)
        download.on_progress = progress
        download.start()

    asyncio.run(serve(options.service, options.port, network, accepted))


if __name__ == "__main__":
    main()
