"""An echo server that also holds something which stands in the way of a migration.

``odd.py ADDRESS:PORT [WORD ...]`` serves when all the words have been done:

- ``listen=ADDRESS:PORT`` one more listener that is served; ``stuck=`` one whose connections are never
  accepted; ``deaf=`` one whose connections are accepted and never read
- ``connect=FROM>ADDRESS:PORT`` a connection; ``unix=@NAME`` one to the unix socket that another odd.py has
  with ``unixserver=@NAME``
- ``read=PATH`` ``write=PATH`` an open file; ``map=PATH`` a file mapped as a library is; ``cwd=PATH``
- ``stranger`` a process that is nobody's child and writes to a pipe of which both ends are here, too
- ``memory=MB`` memory that is written, and no two pages are equal
- ``mptcp`` ``md5=PEER`` ``tls`` of the listener, or of the connections it accepts
"""

from __future__ import annotations

import contextlib
import mmap
import os
import selectors
import signal
import socket
import struct
import sys
import time

IPPROTO_MPTCP = 262
TCP_MD5SIG, TCP_ULP = 14, 31
PAGE_BYTES = 4096


def split(text: str) -> tuple[str, int]:
    """ADDRESS:PORT."""
    address, _, port = text.rpartition(":")
    return address, int(port)


def md5_key(peer: str, key: bytes = b"odd") -> bytes:
    """struct tcp_md5sig for an IPv4 peer. Source: include/uapi/linux/tcp.h."""
    address = struct.pack("=HH4s120x", socket.AF_INET, 0, socket.inet_aton(peer))
    return address + struct.pack("=BBHi80s", 0, 0, len(key), 0, key)


class Server:
    """One process with everything its words say."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.kept: list[object] = []
        self.tls = False

    def listen(self, where: str, protocol: int = 0, md5: str = "") -> socket.socket:
        """A listener that nobody accepts from yet."""
        address, port = split(where)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        if md5:
            listening.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, md5_key(md5))
        listening.listen(16)
        self.kept.append(listening)
        return listening

    def accept_from(self, listening: socket.socket, *, deaf: bool = False) -> None:
        """Serve it from now on."""
        self.selector.register(listening, selectors.EVENT_READ, "deaf" if deaf else "listen")

    def do(self, word: str) -> None:
        """One word of the command line."""
        name, _, value = word.partition("=")
        if name in ("listen", "deaf"):
            self.accept_from(self.listen(value), deaf=name == "deaf")
        elif name == "stuck":
            self.listen(value)
        elif name == "connect":
            near, _, far = value.partition(">")
            self.kept.append(socket.create_connection(split(far), 10, (near, 0)))
        elif name in ("unix", "unixserver"):
            self.unix(value, server=name == "unixserver")
        elif name in ("read", "write"):
            self.kept.append(open(value, "rb" if name == "read" else "r+b"))  # noqa: PTH123, SIM115
        elif name == "map":
            with open(value, "rb") as file:  # noqa: PTH123
                protection = mmap.PROT_READ | mmap.PROT_EXEC
                self.kept.append(mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, protection))
        elif name == "cwd":
            os.chdir(value)
        elif name == "memory":
            self.kept.append(os.urandom(int(value) << 20))
        elif name == "stranger":
            stranger(*os.pipe())
        elif name == "tls":
            self.tls = True

    def unix(self, path: str, *, server: bool) -> None:
        """One end of a unix connection."""
        sock = socket.socket(socket.AF_UNIX)
        path = path.replace("@", "\0", 1)
        if server:
            sock.bind(path)
            sock.listen()
        else:
            sock.connect(path)
        self.kept.append(sock)

    def serve(self) -> None:
        """Echo for ever."""
        while True:
            for key, _ in self.selector.select():
                if key.data == "echo":
                    self.echo(key.fileobj)
                    continue
                connection, _ = key.fileobj.accept()
                self.kept.append(connection)
                if self.tls:
                    connection.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
                if key.data == "listen":
                    self.selector.register(connection, selectors.EVENT_READ, "echo")

    def echo(self, connection: socket.socket) -> None:
        """Send back what has come."""
        try:
            data = connection.recv(1 << 16)
        except OSError:
            data = b""
        if data:
            connection.sendall(data)
        else:
            self.selector.unregister(connection)
            connection.close()


def stranger(read: int, write: int) -> None:
    """It ends when nobody reads the pipe any more."""
    os.set_blocking(write, False)
    if os.fork() == 0:
        if os.fork() == 0:
            os.closerange(3, write)
            os.closerange(write + 1, 64)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            while True:
                with contextlib.suppress(BlockingIOError):
                    os.write(write, b"x")
                time.sleep(0.1)
        os._exit(0)
    os.wait()


def main(where: str, words: list[str]) -> None:
    """Do the words, then serve."""
    server = Server()
    for word in words:
        server.do(word)
    md5 = next((word.removeprefix("md5=") for word in words if word.startswith("md5=")), "")
    server.accept_from(server.listen(where, IPPROTO_MPTCP if "mptcp" in words else 0, md5))
    server.serve()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
