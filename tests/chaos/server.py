"""What chaos migrates: numbered streams, a beat that shows two copies, and mischief that it does when told.

``server.py serve PORT``: as tests/workloads/numbered.py on PORT, an echo of one line on PORT + 1, and every few ms
a symbolic link ``/tmp/beats/PID-NANOSECONDS`` (of CLOCK_REALTIME: CRIU lets the monotonic clock stand still in the
gap): nothing of it is open while it is frozen, and who looks at both hosts sees whether a copy ever ran that should
not.

``/tmp/beats/do`` is a symbolic link that says what to do: ``fork``, ``exec``, ``exit``. It handles SIGUSR1 and
SIGHUP, and ends of SIGTERM.

``server.py call ADDRESS PORT RATE SECONDS``: so many new connections to the echo a second; prints a line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workloads"))
import numbered  # noqa: E402

BEAT_S = 0.005
BEATS = "/tmp/beats"
#: How long mischief goes on, seconds.
MISCHIEF_S = 1.0
#: A caller that was not answered by then has been let down: three retransmissions of a SYN, and a long gap.
ANSWER_S = 40.0


def beat() -> None:
    """Show that this copy runs, for ever."""
    while True:
        with contextlib.suppress(OSError):
            Path(f"{BEATS}/{os.getpid()}-{time.time_ns()}").symlink_to("x")
        time.sleep(BEAT_S)


def obey() -> None:
    """Look for what to do, for ever."""
    while True:
        word = ""
        with contextlib.suppress(OSError):
            word = str(Path(f"{BEATS}/do").readlink())
            Path(f"{BEATS}/do").unlink()
        if word:
            {"fork": fork, "exec": execute, "exit": lambda: os._exit(7)}[word]()
        time.sleep(BEAT_S)


def fork() -> None:
    """Short-lived children, one after the other."""
    until = time.monotonic() + MISCHIEF_S
    while time.monotonic() < until:
        if (child := os.fork()) == 0:
            os._exit(0)
        os.waitpid(child, 0)


def execute() -> None:
    """Short-lived children that are other programs."""
    until = time.monotonic() + MISCHIEF_S
    while time.monotonic() < until:
        subprocess.run(["true"], check=False)


def echo(port: int) -> None:
    """Accept, answer a line, close, for ever."""
    with socket.create_server(("0.0.0.0", port), backlog=1024) as server:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()


def answer(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        connection.sendall(connection.recv(100))


def serve(port: int) -> None:
    """The server's life."""
    for number in (signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    for work in (beat, obey):
        threading.Thread(target=work, daemon=True).start()
    threading.Thread(target=echo, args=(port + 1,), daemon=True).start()
    numbered.serve(port)


def call(address: str, port: int, rate: float, seconds: float) -> None:
    """The callers; each in a thread of its own, so that a slow one holds up nobody."""
    problems: list[str] = []
    callers = []
    began = time.monotonic()
    for number in range(int(rate * seconds)):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        callers.append(
            threading.Thread(target=call_once, args=(address, port, number, problems), daemon=True)
        )
        callers[-1].start()
    for caller in callers:
        caller.join()
    print(json.dumps({"calls": len(callers), "problems": problems}), flush=True)


def call_once(address: str, port: int, number: int, problems: list[str]) -> None:
    line = f"call {number}\n".encode()
    began = time.monotonic()
    try:
        with socket.create_connection((address, port), timeout=ANSWER_S) as connection:
            connection.sendall(line)
            heard = connection.recv(100)
            if heard != line:
                problems.append(f"call {number} was answered {heard!r}")
    except OSError as error:
        problems.append(f"call {number} after {time.monotonic() - began:.1f} s: {error}")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        call(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))
