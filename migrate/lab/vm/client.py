"""Runs a program in a machine of the lab, in the foreground or detached; the asking end of ``worker.py``.

A program of its own as well: :func:`argv`. It enters the network namespace in which the machines' control
interfaces are, connects, and from then on only passes bytes and signals on.
"""

import contextlib
import json
import os
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Any

from migrate.lab import enter
from migrate.lab.host import PROJECT
from migrate.lab.vm import exchange, frames
from migrate.lab.vm.exchange import Gone

CONNECT_DEADLINE_S = 10.0
#: A machine that is switched off does not say so: after this time without a sign of it a command is given up.
SILENCE_S = 30
CHUNK = 65536
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from migrate.lab.vm.client import main; sys.exit(main())"


def argv(
    mode: str, init: tuple[int, int], address: tuple[str, int], log: str, command: list[str]
) -> list[str]:
    """Return the command line of a process that does what :func:`run` or :func:`spawn` does."""
    start = [sys.executable, "-I", "-S", "-c", _START, str(PROJECT)]
    return [*start, mode, str(init[0]), str(init[1]), address[0], str(address[1]), log, *command]


def connect(init: tuple[int, int], address: tuple[str, int]) -> socket.socket:
    """Return a connection to the agent at *address*, in the network of the segment's *init*, entered for good.

    :raises ProcessLookupError: the init is gone.
    :raises Gone: the machine does not answer.
    """
    pidfd = os.pidfd_open(init[0])
    if enter.start_ticks(init[0]) != init[1]:
        raise ProcessLookupError(f"no init {init[0]}")
    enter.setns(pidfd, enter.CLONE_NEWNET)
    os.close(pidfd)
    try:
        made = socket.create_connection(address, CONNECT_DEADLINE_S)
    except OSError as error:
        raise Gone(f"the machine at {address[0]} does not answer: {error}") from None
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENCE_S // 3)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, SILENCE_S // 6)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_S * 1000)
    made.settimeout(None)
    return made


def request(mode: str, log: str, command: list[str], size: tuple[int, int] | None = None) -> bytes:
    """Return the first frame. *size*: rows and columns of a terminal that the command gets."""
    asked: dict[str, Any] = {"mode": mode, "command": command, "log": log, "tty": size}
    return frames.frame(frames.REQUEST, json.dumps(asked | {"term": os.environ.get("TERM", "")}).encode())


def spawn(init: tuple[int, int], address: tuple[str, int], log: str, command: list[str]) -> int:
    """Start *command* detached, and print its PID in the machine; return the exit status as :func:`enter.spawn`."""
    reader = frames.Reader()
    with connect(init, address) as connection:
        connection.sendall(request("spawn", log, command))
        found: list[tuple[int, bytes]] = []
        while not found:
            data = connection.recv(CHUNK)
            if not data:
                raise Gone("the machine ended the connection")
            found = reader.add(data)
    text = os.fsdecode(found[0][1])
    if text.startswith("!") or not text:
        return enter.not_detached(text, command)
    print(text, flush=True)
    return 0


def run(
    init: tuple[int, int], address: tuple[str, int], command: list[str], *, terminal: bool = False
) -> int:
    """Run *command* with this process's standard streams; return its exit status, or die of its signal.

    :param terminal: give it a terminal if standard input is one.
    """
    terminal = terminal and os.isatty(0)
    with connect(init, address) as connection:
        told = exchange.signals()
        size = exchange.size_of_terminal() if terminal else None
        with _raw(terminal):
            connection.sendall(request("exec", "", command, size))
            status = exchange.Exchange(connection, told, terminal=terminal).run()
    return enter.end_like(status)


@contextlib.contextmanager
def _raw(wanted: bool) -> Iterator[None]:
    """Have the terminal pass every key on, inside the block."""
    if not wanted:
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def main() -> int:
    """``exec|spawn PID TICKS ADDRESS PORT LOG COMMAND...``."""
    mode, pid, ticks, address, port, log, *command = sys.argv[1:]
    init, there = (int(pid), int(ticks)), (address, int(port))
    try:
        return spawn(init, there, log, command) if mode == "spawn" else run(init, there, command)
    except ProcessLookupError:
        sys.stderr.write("migrate-lab: the lab has ended; migrate-lab --vm up starts it anew\n")
    except (Gone, PermissionError) as error:
        sys.stderr.write(f"migrate-lab: {error}\n")
    except BrokenPipeError:
        return 1
    return enter.EXIT_LAB
