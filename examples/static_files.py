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
import socket
from collections.abc import Callable
from pathlib import Path

from common import Connection, State, in_background, parsers, serve
from handing import PATIENCE_S, hand_over, take
from redirect import Redirect

CHUNK_BYTES = 1 << 18
#: What the kernel takes from us and has not sent goes along in the ICI; more than this helps nobody.
UNSENT_BYTES = 1 << 18
TCP_NOTSENT_LOWAT = 25
#: The file on its way, "" between two, with its size in bytes; what of it is written.
IDLE = {"name": "", "size": 0, "position": 0}


class Files:
    """The application.

    :param on_progress: called now and then during a download.
    """

    def __init__(self, directory: Path, on_progress: Callable[[Connection], None]) -> None:
        self.directory, self.on_progress = directory, on_progress

    async def serve(self, client: Connection) -> None:
        """Answer one request after the other, beginning in the middle of the file in the client's state."""
        client.sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        while True:
            if client.state["name"]:
                await self._send_file(client)
            request = await client.reader.readuntil(b"\r\n\r\n")
            client.writer.write(self._answer(client, request.decode("latin-1").split()))

    def _answer(self, client: Connection, words: list[str]) -> bytes:
        """The head; the file, if there is one, follows."""
        name = "/".join(words[1:2]).lstrip("/")
        try:
            size = self._path(name).stat().st_size
        except OSError:
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        client.state.update(name=name, size=size, position=0)
        return f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode()

    def _path(self, name: str) -> Path:
        path = (self.directory / name).resolve()
        if not path.is_relative_to(self.directory) or not path.is_file():
            raise FileNotFoundError(f"no file {name!r}")
        return path

    async def _send_file(self, client: Connection) -> None:
        """From the position on, which counts what is written: from there the streams see to it."""
        state = client.state
        with self._path(state["name"]).open("rb") as file:
            file.seek(state["position"])
            while state["position"] < state["size"]:
                chunk = file.read(min(CHUNK_BYTES, state["size"] - state["position"]))
                if not chunk:
                    raise EOFError("the file became shorter")
                client.writer.write(chunk)
                state["position"] += len(chunk)
                self.on_progress(client)
                await client.writer.drain()
                await asyncio.sleep(0)  # where the kernel takes all at once, drain() lets nobody else run
        state.update(IDLE)

    def check(self, state: State) -> None:
        """Whether we can go on where another server was. :raises OSError, ValueError: with another file, no."""
        if state["name"] and (size := self._path(state["name"]).stat().st_size) != state["size"]:
            raise ValueError(f"{state['name']} has {size} bytes here, not {state['size']}")


def main() -> None:
    """Run as ``serve`` or ``take``."""
    whole, front, taker = parsers(__doc__)
    for one in (front, taker):
        one.add_argument("--directory", type=lambda text: Path(text).resolve(), required=True)
    front.add_argument("--pass-after", type=int, default=1 << 20, metavar="BYTES", help="of a download")
    front.add_argument("--patience", type=float, default=PATIENCE_S, metavar="SECONDS", help="with the taker")
    options = whole.parse_args()
    if options.role == "take":
        files = Files(options.directory, lambda _: None)
        asyncio.run(take(options.at, options.service, files.serve, files.check))
        return
    network = Redirect(options.service, options.port, options.ingress, options.egress)
    tried: set[Connection] = set()

    def progress(client: Connection) -> None:
        if client.state["position"] >= options.pass_after and client not in tried:
            tried.add(client)  # once is enough, even if nobody takes it
            client.ended.add_done_callback(lambda _: tried.discard(client))
            in_background(hand_over([client], options.to[0], network, options.patience))

    files = Files(options.directory, progress)
    asyncio.run(serve(options.service, options.port, network, files.serve, IDLE))


if __name__ == "__main__":
    main()
