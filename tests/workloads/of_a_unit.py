"""The main process of a unit of systemd: serves numbers as numbered.py does, and writes.

``PORT``: once a second it writes ``tick N`` to its standard output, and ``beside N`` to a stream of its own to the
journal. Where systemd has a watchdog, it tells that.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

import numbered


def told(message: str) -> None:
    """Tell systemd, where it wants to know: sd_notify(3)."""
    if where := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(message.encode(), where)


def stream() -> socket.socket:
    """As sd_journal_stream_fd(3) makes it, of the same name as the standard ones."""
    made = socket.socket(socket.AF_UNIX)
    made.connect("/run/systemd/journal/stdout")
    made.shutdown(socket.SHUT_RD)
    made.sendall(b"python3\n\n30\n0\n0\n0\n0\n")
    return made


def ticks(beside: socket.socket) -> None:
    number = 0
    while True:
        number += 1
        print("tick", number, flush=True)
        beside.sendall(b"beside %d\n" % number)
        if "WATCHDOG_USEC" in os.environ:
            told("WATCHDOG=1")
        time.sleep(1)


if __name__ == "__main__":
    listeners = numbered.listen(int(sys.argv[1]))
    told("READY=1")
    threading.Thread(target=ticks, args=(stream(),), daemon=True).start()
    numbered.accept(listeners)
