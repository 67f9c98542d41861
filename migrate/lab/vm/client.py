"""Runs a program in a machine of the lab, in the foreground or detached; the asking end of ``worker.py``.

A program of its own as well: :func:`argv`. It enters the network namespace in which the machines' control
interfaces are, connects, and from then on only passes bytes and signals on.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from migrate.lab import enter
from migrate.lab.ends import complain
from migrate.lab.errors import LabError
from migrate.lab.host import PROJECT
from migrate.lab.vm import exchange, frames, network, qemu
from migrate.lab.vm.exchange import Ended, Gone, Silent

CONNECT_DEADLINE_S = 10.0
#: A machine whose kernel has stopped does not say so: after this time without a sign of it a command is given up.
SILENCE_S = 30
CHUNK = 65536
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from migrate.lab.vm.client import main; sys.exit(main())"


def argv(mode: str, init: tuple[int, int], host: str, log: str, command: list[str]) -> list[str]:
    """Return the command line of a process that does what :func:`run` or :func:`spawn` does."""
    start = [sys.executable, "-I", "-S", "-c", _START, str(PROJECT)]
    return [*start, mode, str(init[0]), str(init[1]), host, log, *command]


def end_of(init: tuple[int, int], host: str) -> int:
    """Return a pidfd of the machine *host*: of QEMU, a child of the segment's *init*. -1: there is none."""
    with contextlib.suppress(OSError):  # it ends meanwhile
        children = Path(f"/proc/{init[0]}/task/{init[0]}/children").read_text().split()
        for pid in children:
            if qemu.is_machine(Path("/proc", pid, "cmdline").read_bytes(), host):
                return os.pidfd_open(int(pid))
    return -1


def connect(init: tuple[int, int], host: str) -> socket.socket:
    """Return a connection to the agent of *host*, in the network of the segment's *init*, entered for good.

    :raises ProcessLookupError: the init is gone.
    :raises Gone: the machine does not answer.
    """
    pidfd = os.pidfd_open(init[0])
    if enter.start_ticks(init[0]) != init[1]:
        raise ProcessLookupError(f"no init {init[0]}")
    enter.setns(pidfd, enter.CLONE_NEWNET)
    os.close(pidfd)
    try:
        address = (network.control_address(host), network.CONTROL_PORT)
        made = socket.create_connection(address, CONNECT_DEADLINE_S)
    except OSError as error:
        raise Silent(f"{host} does not answer: {error}") from None
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENCE_S // 3)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, SILENCE_S // 6)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_S * 1000)
    made.settimeout(None)
    return made


def request(mode: str, log: str, command: list[str], size: tuple[int, int] | None = None) -> bytes:
    """Return the first frame. *size*: rows and columns of a terminal that the command gets.

    :raises LabError: the command is longer than any that a kernel would execute.
    """
    asked: dict[str, Any] = {"mode": mode, "command": command, "log": log, "tty": size}
    data = json.dumps(asked | {"term": os.environ.get("TERM", "")}).encode()
    if len(data) > frames.LONGEST:
        raise LabError(f"a command of {len(data)} bytes: no more than {frames.LONGEST} reach a machine")
    return frames.frame(frames.REQUEST, data)


def spawn(init: tuple[int, int], host: str, log: str, command: list[str]) -> int:
    """Start *command* detached, and print its PID in the machine; return the exit status as :func:`enter.spawn`.

    :raises Gone: the machine does not say it.
    """
    asked = request("spawn", log, command)
    with connect(init, host) as connection:
        try:
            connection.sendall(asked)
            text = os.fsdecode(_first(connection))
        except OSError as error:
            raise Silent(f"{host} does not answer any more: {error}") from None
    if text.startswith("!") or not text:
        return enter.not_detached(text, command)
    return enter.tell_pid(text)


def _first(connection: socket.socket) -> bytes:
    """What the first frame says."""
    reader = frames.Reader()
    found: list[tuple[int, bytes]] = []
    while not found:
        if not (data := connection.recv(CHUNK)):
            raise Gone("the machine ended the connection")
        found = reader.add(data)
    return found[0][1]


def run(init: tuple[int, int], host: str, command: list[str], *, terminal: bool = False) -> int:
    """Run *command* with this process's standard streams; return its exit status, or die of its signal.

    :param terminal: give it a terminal if standard input is one.
    :raises Gone: the machine went away before it said it; Ended: it does not answer, and a signal asks for an end.
    :raises LabError: a standard stream does not take what it wrote, which has ended it.
    """
    terminal = terminal and os.isatty(0)
    size = exchange.size_of_terminal() if terminal else None
    asked = request("exec", "", command, size)
    end = end_of(init, host)
    with connect(init, host) as connection:
        told = exchange.signals()
        with _raw(terminal):
            passing = exchange.Exchange(connection, told, terminal=terminal, end=end)
            passing.waiting += asked
            status = passing.run()
    return enter.end_like(status)


@contextlib.contextmanager
def _raw(wanted: bool) -> Iterator[None]:
    """Have the terminal pass every key on, inside the block; what was typed before it is kept."""
    if not wanted:
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSANOW)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # It is gone.
            termios.tcsetattr(0, termios.TCSADRAIN, before)


def main() -> int:
    """``exec|spawn PID TICKS HOST LOG COMMAND...``."""
    mode, pid, ticks, host, log, *command = sys.argv[1:]
    init = (int(pid), int(ticks))
    try:
        return spawn(init, host, log, command) if mode == "spawn" else run(init, host, command)
    except ProcessLookupError:
        complain("the lab has ended; migrate-lab --vm up starts it anew")
    except Ended as error:
        complain(str(error))
        return enter.end_like(error.number)
    except (Gone, LabError, PermissionError) as error:
        complain(str(error))
    except KeyboardInterrupt:
        return enter.end_like(signal.SIGINT)
    except BrokenPipeError:
        return 1
    return enter.EXIT_LAB
