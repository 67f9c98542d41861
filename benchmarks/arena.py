"""Runs: each in a lab of its own, competitors in turn, with deadlines; failures are told, not hidden."""

from __future__ import annotations

import contextlib
import itertools
import os
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
sys.path.insert(1, str(HERE.parent / "tests"))

from harness import workloads  # noqa: E402
from harness.hosts import listeners, use_pid  # noqa: E402
from harness.wait import TooLate, eventually  # noqa: E402
from harness.workloads import WORKLOADS, Silent  # noqa: E402

PORT = 7000
ANSWER_S = 75.0
#: PIDs on the origin begin here, so that none is taken on the destination: stock CRIU could not restore it.
FIRST_PID = 5000

Metrics = dict[str, float]
_numbers = itertools.count()


class RunFailed(Exception):
    """A run gave no figures; the text says why, with the output of what failed."""


class Client(workloads.Client):
    """A program that measures, in a host."""

    def told(self, word: str = "stop") -> dict[str, Any]:
        """Say *word*; what it has measured."""
        return self.ask(word, ANSWER_S)

    def measured(self, word: str = "stop") -> dict[str, Any]:
        """:meth:`told`, where an error that the client met means that the run gave no figures."""
        answer = self.told(word)
        if answer.get("error"):
            raise RunFailed(f"{self.name}: {answer['error']}")
        return answer


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
        use_pid(origin, FIRST_PID)
        command = [sys.executable, "-I", "-S", str(WORKLOADS / "server.py"), str(PORT), *map(str, words)]
        pid = origin.spawn(command)
        eventually(lambda: listeners(origin, PORT), "the server listens")
        return pid

    def client(self, script: str, *words: object, host: str = "peer") -> Client:
        """Start a client that is ready to measure. :raises Silent: it is not."""
        client = Client.start(self.host(host), script, *words)
        self._clients.append(client)
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
            Silent,
            TooLate,
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
    if isinstance(error, (RunFailed, Silent, TooLate)):
        return str(error)
    output = "".join(str(getattr(error, name, None) or "") for name in ("stdout", "stderr"))
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})\n{output[-2000:]}"
