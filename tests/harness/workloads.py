"""The programs of tests/workloads on a host of a lab: each says ``ready``, is told lines, answers in JSON."""

from __future__ import annotations

import contextlib
import json
import queue
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import Any, Self

from harness.hosts import listeners, spawn
from harness.wait import DEADLINE_S, FACTOR, eventually
from migrate.lab import Host, Lab

WORKLOADS = Path(__file__).resolve().parents[1] / "workloads"
#: Put before a passer's command.
PASSER = [] if FACTOR == 1 else ["env", f"PASSER_DEADLINE_S={20 * FACTOR:g}"]
#: Seconds between a numbered stream's bursts. An emulated machine has one processor, and the server would else take
#: half of it from what moves it.
NUMBERED_S = 0.004 if FACTOR == 1 else 0.02 * FACTOR
#: Put before a numbered stream's command.
NUMBERED = [] if FACTOR == 1 else ["env", f"NUMBERED_INTERVAL_S={NUMBERED_S:g}"]
READY_S = 60.0 * FACTOR


class Silent(AssertionError):
    """A program said nothing, nothing in time, or something else than it should; the text has what it said."""


class Client:
    """A program that runs, with pipes for its standard input and output, by text."""

    def __init__(self, process: Popen[str], name: str) -> None:
        self.process, self.name = process, name
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    @classmethod
    def start(cls, host: Host, script: str, *words: object, before: Sequence[str] = ()) -> Self:
        """Start tests/workloads/*script* on *host*, and wait until it is ready. :raises Silent: it is not.

        :param before: words before its command, e.g. of env.
        """
        command = [*before, sys.executable, str(WORKLOADS / script), *map(str, words)]
        client = cls(host.popen(command, stdin=PIPE, stdout=PIPE, stderr=STDOUT, text=True), script)
        client.ready()
        return client

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def line(self, within_s: float = DEADLINE_S) -> str:
        """The next line. :raises Silent: none came."""
        try:
            line = self._lines.get(timeout=within_s)
        except queue.Empty:
            raise Silent(f"{self.name} said nothing for {within_s:g} s") from None
        if not line:
            raise Silent(f"{self.name} ended early, status {self.process.wait(5)}")
        return line

    def ready(self) -> None:
        """Wait until it says so. :raises Silent: it said something else, or nothing."""
        line = self.line(READY_S)
        if line != "ready\n":
            more = [line]
            with contextlib.suppress(Silent):
                while True:
                    more.append(self.line(2))
            raise Silent(f"{self.name}: {''.join(more)}")

    def ask(self, word: str = "", within_s: float = DEADLINE_S) -> dict[str, Any]:
        """Say *word*; what it answers. :raises Silent: nothing."""
        with contextlib.suppress(BrokenPipeError):
            assert self.process.stdin is not None
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
        line = self.line(within_s)
        try:
            return dict(json.loads(line))
        except ValueError:
            raise Silent(f"{self.name}: {line}") from None

    def stop(self) -> dict[str, Any]:
        """Have it end; what it says last."""
        said = self.ask("stop")
        self.end()
        return said

    def end(self) -> None:
        """Nothing more is told to it; wait for its end."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(DEADLINE_S)

    def close(self) -> None:
        """End it, if it runs."""
        self.process.kill()
        self.process.wait(10)


def serve_numbered(host: Host, port: int, *words: int) -> int:
    """A server of numbered streams on *host*, which listens; its PID. :param words: its threads and children."""
    command = [
        *NUMBERED,
        sys.executable,
        str(WORKLOADS / "numbered.py"),
        "serve",
        str(port),
        *map(str, words),
    ]
    pid = spawn(host, command)
    eventually(lambda: listeners(host, port) == 2, "the server listens")
    return pid


def drive_numbered(lab: Lab, port: int, each: int) -> Client:
    """A client on peer with *each* IPv4 and as many IPv6 connections, all of them carrying numbers."""
    where = [word for address in lab.service for word in (address, each)]
    return Client.start(lab.hosts["peer"], "numbered.py", "drive", port, *where, before=NUMBERED)


def assert_streams(client: Client, before: dict[str, Any]) -> dict[str, Any]:
    """Every connection of a numbered client has gone on since *before* without an error."""
    after = client.ask()
    assert after["errors"] == []
    assert after["connections"] == before["connections"]
    eventually(lambda: client.ask()["least_received"] > before["least_received"] + 20, "all streams go on")
    return after
