"""What the log says of a migration at the origin: who asked for what, what was found, and how it ended."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
from pathlib import Path
from typing import Any

from migrate.events import log, who
from migrate.link import speech
from migrate.pb import session_pb2 as pb
from migrate.report.report import Outcome, Report
from migrate.request import Request
from migrate.version import VERSION


class Chronicle:
    """That of one migration, which begins now."""

    def __init__(self, request: Request) -> None:
        self._request, self._who = request, who.asked()
        self._here = os.uname().nodename
        log.tell(
            "began",
            **_versions(),
            asked=_asked(request),
            by=self._who,
            host=self._here,
            program=program(request.pid),
        )

    def ended(self, report: Report) -> None:
        """It is over, as *report* says."""
        said: dict[str, Any] = report.as_json()
        name = f" ({report.trace.program})" if report.trace.program else ""
        text = (
            f"PID {report.pid}{name} from {self._here} to {report.host}, asked for by"
            f" {who.in_words(self._who)}: {_how(report)}"
        )
        said.pop("event")
        log.ended(said.pop("outcome"), text, **said)


def program(pid: int) -> str:
    """What the process is called, "" if it is not there."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n")
    return ""


def hosts(here: pb.HostInventory, there: pb.HostInventory, ends: tuple[str, str]) -> None:
    """Both hosts were looked at.

    :param ends: the addresses of the session.
    """
    ours, its = (
        {"host": one.hostname, "kernel": one.kernel, "machine": one.machine, "criu": one.criu_version}
        for one in (here, there)
    )
    log.tell("hosts", origin=ours | {"address": ends[0]}, destination=its | {"address": ends[1]})


def process(found: pb.ProcessInventory) -> None:
    """The process was looked at."""
    log.tell(
        "process",
        tasks=[task.pid for task in found.tasks],
        memory_bytes=found.memory_bytes,
        connections=sum(1 for one in found.sockets if one.peer_port),
        listeners=sum(1 for one in found.sockets if not one.peer_port),
        addresses=list(found.service_addresses),
    )


def _asked(request: Request) -> dict[str, Any]:
    """What is not as usual, each by its own name, whatever group it is in."""
    found = dataclasses.asdict(request)
    found |= found.pop("along")
    found |= found.pop("way")
    found |= found.pop("named")
    return {name: value for name, value in found.items() if value}


def _versions() -> dict[str, Any]:
    """Of all that takes part here and is known before anything is looked at."""
    return {
        "migrate": VERSION,
        "protocol": speech.NEWEST,
        "python": platform.python_version(),
        "kernel": os.uname().release,
    }


def _how(report: Report) -> str:
    if report.outcome is Outcome.UNTOUCHED and report.error is not None:
        return f"{report.outcome.value}, {report.error.text}"
    return f"{report.outcome.value}, {report.where}"
