"""Holds COUNT quiet connections, and one more that shows when the server's host was cut off.

``quiet.py ADDRESS PORT COUNT [plain]``. On the one more it sends 100 bytes every millisecond, which the server
only reads, and watches for incoming segments: acknowledgements come as long as the server's *host* answers,
whether or not the process runs. In the end every quiet connection must answer. With ``plain`` the server is
another program, which just sends back: no probe, no questions.
"""

from __future__ import annotations

import select
import socket
import sys
import time

from asking import DEADLINE_S, Silence, Until, ask, connect, segments_in, tell

PERIOD_S = 0.001
#: So many connections are made before the server must show that it keeps pace.
BATCH = 500


def connect_all(address: str, port: int, count: int) -> list[socket.socket]:
    """The quiet connections."""
    made = []
    for number in range(count):
        made.append(connect(address, port, "echo"))
        if number % BATCH == BATCH - 1 or number == count - 1:
            exchange(made[-1])
    return made


def exchange(sock: socket.socket) -> None:
    """One question and its answer."""
    sock.send(b"?")
    if not sock.recv(64):
        raise ConnectionAbortedError("closed by the other side")


def watch(probe: socket.socket, until: Until) -> tuple[Silence, str]:
    """Send and look for segments, until it is over."""
    silence, error = Silence(), ""
    probe.setblocking(False)
    count, changed, now = segments_in(probe), time.monotonic(), time.monotonic()
    while not until.over(now):
        try:
            probe.send(b"x" * 100)
        except BlockingIOError:
            pass
        except OSError as problem:
            error = str(problem)
            break
        time.sleep(PERIOD_S)
        now = time.monotonic()
        if (found := segments_in(probe)) != count:
            silence.was(changed, now)
            count, changed = found, now
    silence.was(changed, now)
    return silence, error


def unanswered(socks: list[socket.socket]) -> int:
    """Ask on all connections; how many gave no answer in time."""
    epoll = select.epoll()
    waiting = {sock.fileno(): sock for sock in socks}
    for sock in socks:
        sock.setblocking(False)
        epoll.register(sock, select.EPOLLIN)
        try:
            sock.send(b"!")
        except OSError:
            continue
    deadline = time.monotonic() + DEADLINE_S
    answered = 0
    while answered < len(socks) and (left := deadline - time.monotonic()) > 0:
        for fd, _ in epoll.poll(left):
            epoll.unregister(fd)
            try:
                answered += bool(waiting.pop(fd).recv(64))
            except OSError:
                continue
        if not waiting:
            break
    return len(socks) - answered


def main(address: str, port: int, count: int, *, plain: bool) -> None:
    """Connect, watch, and look whether all are still there."""
    socks = connect_all(address, port, count)
    until = Until()
    result: dict[str, object] = {}
    if plain:
        print("ready", flush=True)
        sys.stdin.readline()
        result["error"] = ""
    else:
        probe = connect(address, port, "sink")
        time.sleep(0.05)
        ask(address, port, "reset")
        until.ready()
        silence, error = watch(probe, until)
        result = {**silence.said(), "error": error}
    result |= {"connections": count, "lost": unanswered(socks)}
    tell(address, port, result, report=not plain)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), plain="plain" in sys.argv[4:])
