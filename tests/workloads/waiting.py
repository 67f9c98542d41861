"""Waits in one system call in each thread, and tells on a connection which of them have ended, and how.

``waiting.py PORT [handler]``. It has no handler for any signal, so that none of them may end with EINTR; or, with
``handler``, one for SIGUSR1. The short ones end by themselves, :data:`SHORT_S` after they began.
"""

from __future__ import annotations

import ctypes
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

LONG_S, SHORT_S = 600, 4
FUTEX, FUTEX_WAIT, CLOCK_MONOTONIC, POLLIN = 202, 0, 1, 1
_libc = ctypes.CDLL(None, use_errno=True)
ENDED: dict[str, list[float]] = {}


class Time(ctypes.Structure):
    """struct timespec."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Polled(ctypes.Structure):
    """struct pollfd."""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


def sleeping(seconds: int, *, rest: bool) -> Callable[[], int]:
    """nanosleep(2), with or without a place for what is left."""
    wanted, left = Time(seconds), Time()
    return lambda: _libc.nanosleep(ctypes.byref(wanted), ctypes.byref(left) if rest else None)


def clock_sleeping(seconds: int) -> Callable[[], int]:
    """clock_nanosleep(2), which returns the error."""
    wanted, left = Time(seconds), Time()
    return lambda: _libc.clock_nanosleep(CLOCK_MONOTONIC, 0, ctypes.byref(wanted), ctypes.byref(left))


def polling(sock: socket.socket, timeout_ms: int) -> Callable[[], int]:
    """poll(2) for what does not come."""
    polled = Polled(sock.fileno(), POLLIN)
    return lambda: _libc.poll(ctypes.byref(polled), 1, timeout_ms)


def semaphore() -> Callable[[], int]:
    """sem_timedwait(3)."""
    zero = ctypes.create_string_buffer(32)
    _libc.sem_init(zero, 0, 0)
    until = Time(int(time.time()) + LONG_S)
    return lambda: _libc.sem_timedwait(zero, ctypes.byref(until))


def futex() -> Callable[[], int]:
    """futex(2), FUTEX_WAIT with a time."""
    word, limit = ctypes.c_int(), Time(LONG_S)
    return lambda: _libc.syscall(FUTEX, ctypes.byref(word), FUTEX_WAIT, 0, ctypes.byref(limit), 0, 0)


def calls(silent: socket.socket) -> dict[str, Callable[[], int]]:
    """What is waited in."""
    return {
        "poll": polling(silent, -1),
        "poll with a limit": polling(silent, 1000 * LONG_S),
        "nanosleep": sleeping(LONG_S, rest=False),
        "nanosleep with a rest": sleeping(LONG_S, rest=True),
        "sleep": lambda: _libc.sleep(LONG_S),
        "clock_nanosleep": clock_sleeping(LONG_S),
        "sem_timedwait": semaphore(),
        "futex": futex(),
        "short sleep": lambda: _libc.sleep(SHORT_S),
        "short nanosleep with a rest": sleeping(SHORT_S, rest=True),
        "short clock_nanosleep": clock_sleeping(SHORT_S),
    }


def wait(name: str, call: Callable[[], int]) -> None:
    """A thread's life."""
    began = time.monotonic()
    result = call()
    ENDED[name] = [result, ctypes.get_errno(), time.monotonic() - began]


def main(port: int, *, handler: bool) -> None:
    """Wait, and answer."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if handler:
        signal.signal(signal.SIGUSR1, lambda *_: None)
    silent, other = socket.socketpair()
    for name, call in calls(silent).items():
        threading.Thread(target=wait, args=(name, call), daemon=True).start()
    listening = socket.create_server(("", port))
    while True:
        connection: Any = listening.accept()[0]
        with connection:
            connection.sendall(json.dumps(ENDED).encode() + b"\n")
    other.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), handler="handler" in sys.argv[2:])
