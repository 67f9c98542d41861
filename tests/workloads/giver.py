"""Serves a file over HTTP, and in the middle passes the connection on, with the library alone.

``giver.py ADDRESS/BITS DEVICE PORT TAKER_HOST TAKER_PORT TOTAL_BYTES RATE``. Prints ``ready`` when it
listens, and a line of JSON when the connection is gone. See taker.py for the order of things. It gives the
connection up only when the taker says that it runs there, as a program should.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import subprocess
import sys
import time
from typing import TextIO

from body import Body
from warm import pass_first, pass_some

import tcpcp

#: What goes before an image: the file's offset, its size, the rate, the image's size.
HEAD = struct.Struct("!QQQQ")


def answer(sock: socket.socket, total_bytes: int) -> None:
    """Read the question and send the head of the answer."""
    asked = b""
    while b"\r\n\r\n" not in asked:
        asked += sock.recv(4096)
    sock.sendall(f"HTTP/1.0 200 OK\r\nContent-Length: {total_bytes}\r\n\r\n".encode())


def announce(sock: socket.socket, control: socket.socket, answers: TextIO, body: Body) -> None:
    """Tell the taker that a connection is coming, and go on sending until it is ready."""
    control.sendall(b"coming\n")
    while not select.select([control], [], [], 0)[0]:
        body.send(sock, body.sent + body.chunk_bytes)
    answers.readline()


def give(sock: socket.socket, control: socket.socket, answers: TextIO, body: Body) -> dict[str, float]:
    """Pass the connection on; the times are in ms, when it began is in s of the clock that all hosts share."""
    began = time.monotonic()
    ici = tcpcp.get(sock)
    got = time.monotonic()
    image = tcpcp.dumps(ici)
    control.sendall(HEAD.pack(body.sent, body.total_bytes, body.rate, len(image)) + image)
    sent = time.monotonic()
    taken = json.loads(answers.readline())
    tcpcp.release(sock)
    return {
        "began_s": began,
        "get_ms": 1000 * (got - began),
        "send_ms": 1000 * (sent - got),
        "image_bytes": len(image),
        **taken,
    }


def main(address: str, device: str, port: int, host: str, control_port: int, total: int, rate: int) -> None:
    """Serve one client."""
    tcpcp.prepare()
    pass_some()
    control = socket.create_connection((host, control_port), 20)
    control.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with socket.create_server((address.partition("/")[0], port)) as listening:
        print("ready", flush=True)
        pass_first(listening)
        sock, _ = listening.accept()
    answer(sock, total)
    body = Body(total, rate)
    body.send(sock, total // 2)
    answers = control.makefile()
    announce(sock, control, answers, body)
    told = give(sock, control, answers, body)
    subprocess.run(["ip", "address", "del", address, "dev", device], check=True)
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    first, second, third, fourth, *numbers = sys.argv[1:]
    main(first, second, int(third), fourth, *map(int, numbers))
