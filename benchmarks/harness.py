"""Runs: each in a lab of its own, competitors in turn, with deadlines; failures are told, not hidden."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from migrate.lab import Host, Lab, LabError

HERE = Path(__file__).resolve().parent
WORKLOADS = HERE / "workloads"
PORT = 7000
READY_S = 60.0
ANSWER_S = 75.0
#: PIDs on the origin begin here, so that none is taken on the destination: stock CRIU could not restore it.
FIRST_PID = 5000

Metrics = dict[str, float]
_numbers = itertools.count()


class RunFailed(Exception):
    """A run gave no figures; the text says why, with the output of what failed."""


class Client:
    """A program of ours inside a host: prints ``ready``, is told a line, prints a line of JSON."""

    def __init__(self, host: Host, script: str, *words: object) -> None:
        command = [sys.executable, str(WORKLOADS / script), *map(str, words)]
        pipe = subprocess.PIPE
        self.name = script
        self._process = host.popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout:  # type: ignore[union-attr]
            self._lines.put(line)
        self._lines.put("")

    def line(self, deadline_s: float) -> str:
        """The next line. :raises RunFailed: none came."""
        try:
            line = self._lines.get(timeout=deadline_s)
        except queue.Empty:
            raise RunFailed(f"{self.name} said nothing for {deadline_s:g} s") from None
        if not line:
            raise RunFailed(f"{self.name} ended early, status {self._process.wait(5)}")
        return line

    def ready(self) -> None:
        """Wait until it measures. :raises RunFailed: it said something else."""
        line = self.line(READY_S)
        if line != "ready\n":
            more = [line]
            with contextlib.suppress(RunFailed):
                while True:
                    more.append(self.line(2))
            raise RunFailed(f"{self.name}: {''.join(more)}")

    def ask(self, word: str = "stop") -> dict[str, Any]:
        """Say *word* and return the answer. :raises RunFailed: none came."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(word + "\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]
        line = self.line(ANSWER_S)
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            raise RunFailed(f"{self.name}: {line}") from None
        return answer

    def measured(self, word: str = "stop") -> dict[str, Any]:
        """:meth:`ask`, where an error that the client met means that the run gave no figures."""
        answer = self.ask(word)
        if answer.get("error"):
            raise RunFailed(f"{self.name}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End it, if it runs."""
        self._process.kill()
        self._process.wait(10)


class Arena:
    """A lab for one run; a context manager. It ends while the next comes up, not while that one measures."""

    _ending: threading.Thread | None = None

    def __init__(self) -> None:
        self.lab = Lab(f"bench-{os.getpid()}-{next(_numbers)}")
        self._clients: list[Client] = []

    def __enter__(self) -> Arena:
        self.lab.up()
        Arena.wait_ended()
        return self

    def __exit__(self, *_: object) -> None:
        Arena.wait_ended()
        Arena._ending = threading.Thread(target=self._end)  # No daemon: Python's own end waits for it.
        Arena._ending.start()

    def _end(self) -> None:
        for client in self._clients:
            with contextlib.suppress(subprocess.TimeoutExpired):
                client.close()
        self.lab.down()

    @staticmethod
    def wait_ended() -> None:
        """Wait until the last lab is gone."""
        if Arena._ending is not None:
            Arena._ending.join()
            Arena._ending = None

    def host(self, name: str) -> Host:
        """One of the lab's hosts."""
        return self.lab.hosts[name]

    @property
    def address(self) -> str:
        """The address that moves."""
        return self.lab.service.ipv4

    def serve(self, *words: object) -> int:
        """Start the server on the origin; return its PID there, when it listens."""
        origin = self.host("origin")
        origin.exec(["sh", "-c", f"echo {FIRST_PID} > /proc/sys/kernel/ns_last_pid"])
        command = [sys.executable, "-I", "-S", str(WORKLOADS / "server.py"), str(PORT), *map(str, words)]
        pid = origin.spawn(command)
        deadline = time.monotonic() + READY_S
        while not origin.exec(["ss", "-tlnH", f"sport = {PORT}"]).stdout:
            if time.monotonic() > deadline:
                raise RunFailed("the server does not listen")
        return pid

    def client(self, script: str, *words: object, host: str = "peer") -> Client:
        """Start a client that is ready to measure. :raises RunFailed: it is not."""
        client = Client(self.host(host), script, *words)
        self._clients.append(client)
        client.ready()
        return client

    def peer(self, script: str, *words: object) -> Client:
        """:meth:`client` on the peer, of the server."""
        return self.client(script, self.address, PORT, *words)


@dataclass(slots=True)
class Series:
    """What the runs of one competitor gave."""

    runs: list[Metrics] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def of(self, metric: str) -> list[float]:
        """All values of one metric."""
        return [run[metric] for run in self.runs if metric in run]


Run = Callable[[], Metrics]


class Plan:
    """How many runs, and until when; a benchmark asks it to run its cases.

    :param runs: of each competitor and case.
    :param budget_s: when it is used up, no further run is begun.
    :ivar measured: everything that was measured, by case and competitor.
    """

    def __init__(self, runs: int, budget_s: float, *, quick: bool = False) -> None:
        self.runs, self.quick = runs, quick
        self.measured: dict[str, dict[str, Series]] = {}
        self._end = time.monotonic() + budget_s

    def alternate(self, name: str, competitors: Mapping[str, Run]) -> dict[str, Series]:
        """Run the competitors in turn, A B A B ...."""
        series = self.measured[name] = {competitor: Series() for competitor in competitors}
        for number in range(self.runs):
            for competitor, run in competitors.items():
                self._one(f"{name}: {competitor} {number + 1}/{self.runs}", run, series[competitor])
        return series

    def _one(self, title: str, run: Run, series: Series) -> None:
        if time.monotonic() > self._end:
            series.failures.append("not run: the time of the whole was used up")
            return
        began = time.monotonic()
        try:
            series.runs.append(run())
            said = " ".join(f"{key}={value:.5g}" for key, value in series.runs[-1].items())
        except (
            RunFailed,
            LabError,
            OSError,
            subprocess.SubprocessError,
            LookupError,
            ArithmeticError,
            ValueError,
        ) as error:
            series.failures.append(_why(error))
            said = f"FAILED: {series.failures[-1]}"
        print(f"{title} ({time.monotonic() - began:.1f} s): {said}", file=sys.stderr, flush=True)


def _why(error: Exception) -> str:
    if isinstance(error, RunFailed):
        return str(error)
    output = "".join(str(getattr(error, name, None) or "") for name in ("stdout", "stderr"))
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})\n{output[-2000:]}"
