"""The main process of a unit of systemd: serves numbers as numbered.py does, and writes.

``PORT``: once a second it writes ``tick N`` to its standard output, and where systemd has a watchdog, tells that.
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


def ticks() -> None:
    number = 0
    while True:
        number += 1
        print("tick", number, flush=True)
        if "WATCHDOG_USEC" in os.environ:
            told("WATCHDOG=1")
        time.sleep(1)


if __name__ == "__main__":
    listeners = numbered.listen(int(sys.argv[1]))
    told("READY=1")
    threading.Thread(target=ticks, daemon=True).start()
    numbered.accept(listeners)
