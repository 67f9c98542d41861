"""Passes other connections, so that the one that is measured is not the first that a program passes."""

from __future__ import annotations

import socket

import tcpcp

#: One that has nothing to do and one that has been busy are of two kinds to the library.
HISTORIES_BYTES = (0, 1 << 18)


def passed(sock: socket.socket) -> socket.socket:
    """The connection of *sock*, with an endpoint that has been read, dropped and built anew on this host."""
    image = tcpcp.dumps(tcpcp.get(sock))
    tcpcp.release(sock)
    made = tcpcp.create(tcpcp.loads(image), same_path=True)
    tcpcp.activate(made)
    return made


def pass_some() -> None:
    """Pass connections of this host with itself, and see that they live."""
    for size_bytes in HISTORIES_BYTES:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            here = socket.create_connection(listening.getsockname())
            there, _ = listening.accept()
        there.sendall(bytes(size_bytes))
        here.recv(size_bytes, socket.MSG_WAITALL)
        with here, passed(there) as now:
            here.sendall(b"?")
            if now.recv(1) != b"?":
                raise ConnectionAbortedError("the connection that was passed has ended")


def pass_first(listening: socket.socket) -> None:
    """Accept a connection that asks something, pass it, and answer."""
    sock, _ = listening.accept()
    question = sock.recv(64)
    with passed(sock) as now:
        now.sendall(question)
