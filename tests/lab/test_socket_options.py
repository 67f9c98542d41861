"""Options of sockets that have no connection are after a move as the program has set them."""

from __future__ import annotations

import json
import socket
import sys

import pytest
from harness.hosts import connect, spawn, ss
from harness.migrate import move
from harness.wait import eventually

from migrate.lab import Lab

pytestmark = pytest.mark.usefixtures("clean")

PORT = 7220
#: Answers with what each of its sockets has, as it asks them itself.
PROGRAM = """
import json, socket, sys
ASKED = [
    (socket.socket(2, 1), [(6, 18, 9000), (6, 13, b"reno"), (6, 4, 33)]),
    (socket.socket(2, 2), [(0, 10, 2), (0, 13, 1), (0, 33, 5), (0, 34, 0), (17, 104, 1), (1, 35, 1)]),
    (socket.socket(10, 2), [(41, 18, 5), (41, 19, 0), (41, 66, 1)]),
    (socket.socket(16, 3, 0), [(270, 5, 1), (270, 11, 1), (270, 12, 1)]),
    (socket.socketpair(1, 2)[0], [(1, 42, 3), (1, 29, 1)]),
]
for one, options in ASKED:
    for option in options:
        one.setsockopt(*option)
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
sock, _ = server.accept()
while sock.recv(1):
    found = [one.getsockopt(level, number, 16).hex() for one, options in ASKED for level, number, _ in options]
    sock.sendall(json.dumps(found).encode() + b"\\n")
"""


def ask(sock: socket.socket) -> list[str]:
    sock.sendall(b"?")
    with sock.makefile("rb") as answer:
        return list(json.loads(answer.readline()))


def test_all_are_as_before(lab: Lab) -> None:
    origin = lab.hosts["origin"]
    pid = spawn(origin, [sys.executable, "-c", PROGRAM, lab.service.ipv4, str(PORT)])
    eventually(lambda: ss(origin, "-l", f"sport = {PORT}"), "the program listens")
    with connect(lab.hosts["peer"], lab.service.ipv4, PORT) as sock:
        before = ask(sock)
        moved = move(lab, pid)
        assert ask(sock) == before
        assert [note for note in moved.report["notes"] if "option" in note] == []
