"""What the library's calls cost: ``cost.py PORT``. The connections come from many.py with ``plain``.

Prints ``ready`` when it listens; on a line it gets all its connections, releases them, creates them anew on
this same host and activates them; once to warm up and once for the figures, which are microseconds a
connection. Then it sends back what comes, so that the peer can see that none was lost.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time

from server import Server

import tcpcp


def cycle(socks: list[socket.socket]) -> tuple[list[socket.socket], dict[str, float]]:
    """Pass all connections once; the sockets that replace them, and the times."""
    marks = [time.perf_counter()]
    icis = tcpcp.get_many(socks)
    marks.append(time.perf_counter())
    tcpcp.release_many(socks)
    marks.append(time.perf_counter())
    made = tcpcp.create_many(icis)
    marks.append(time.perf_counter())
    tcpcp.activate_many(made)
    marks.append(time.perf_counter())
    names = ("get_us", "release_us", "create_us", "activate_us")
    spent = zip(names, marks, marks[1:], strict=False)
    return made, {name: 1e6 * (end - begin) / len(socks) for name, begin, end in spent}


def wait_for_line(asked: threading.Event) -> None:
    """The harness's word."""
    sys.stdin.readline()
    asked.set()


def main(port: int) -> None:
    """Serve, measure, serve."""
    server = Server(port)
    print("ready", flush=True)
    asked = threading.Event()
    threading.Thread(target=wait_for_line, args=(asked,), daemon=True).start()
    while not asked.is_set():
        server.turn()
    socks = list(server.connections.values())
    socks, _ = cycle(socks)
    socks, spent = cycle(socks)
    server.epoll.close()
    print(json.dumps(spent | {"connections": len(socks)}), flush=True)
    again = Server(port + 1)
    for sock in socks:
        again.adopt(sock, again.echo)
    again.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
