"""The runner of the command ``migrate --json``: to its end, or to a state in which it waits; and what it said."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from subprocess import PIPE, Popen
from typing import Any

from harness import json_lines, left
from harness.hosts import MOVERS
from harness.wait import DEADLINE_S, FACTOR, eventually
from migrate.lab import Host, Lab

Event = dict[str, Any]
#: When to give up a command that hangs.
COMMAND_S = 60.0 * FACTOR


@dataclass(frozen=True)
class Ran:
    """How a run ended.

    :ivar events: its lines of JSON, the last of which is the report.
    :ivar output: these lines as they were written.
    :ivar began, ended: seconds since the epoch, as captures count.
    """

    status: int
    events: list[Event]
    output: str
    stderr: str
    began: float = 0.0
    ended: float = 0.0

    @property
    def report(self) -> Event:
        """The report."""
        return self.events[-1]

    @property
    def said(self) -> list[str]:
        """What it says to the operator."""
        found = [f"{one['role']}: {one['text']} -> {one['remedy']}" for one in self.report["reasons"]]
        error = self.report["error"]
        if error and not found:
            found = [f"{error['role']}: {error['phase']}: {error['message']} -> {error['hint']}"]
        return found + list(self.report["notes"])

    @property
    def codes(self) -> set[tuple[str, str]]:
        """The reasons, as code and host."""
        return {(one["code"], one["role"]) for one in self.report["reasons"]}

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began

    def must_say(self, role: str, *words: str) -> None:
        """One sentence about the host *role* has all of *words*, and says what to do."""
        fitting = [one for one in self.said if one.startswith(f"{role}: ") and all(w in one for w in words)]
        assert fitting, f"nothing about {role} with {words} in {self.said}"
        assert len(fitting[0].partition(" -> ")[2]) > 10, f"no remedy: {fitting[0]}"


def ran(status: int, output: str, stderr: str, began: float = 0.0, ended: float = 0.0) -> Ran:
    """What a run was that wrote *output*: lines of JSON, the last one and no other the report, and no traceback."""
    assert "Traceback" not in output + stderr, output + stderr
    events = json_lines.read(output)
    assert [event["event"] for event in events].count("report") == 1, f"{events[-1:]} {stderr}"
    assert events[-1]["event"] == "report", events[-1]
    return Ran(status, events, output, stderr, began, ended)


def run_migrate(
    host: Host,
    *words: object,
    timeout_s: float = COMMAND_S,
    program: str | Sequence[str] = "migrate",
) -> Ran:
    """Run ``migrate --json`` on *host* to its end, whatever that is.

    :param program: another one with the same arguments, or a program that runs it, as words.
    """
    command = [program] if isinstance(program, str) else [*program]
    began = time.time()
    done = host.exec([*command, "--json", *map(str, words)], check=False, timeout=timeout_s)
    return ran(done.returncode, done.stdout, done.stderr, began, time.time())


def move(lab: Lab, pid: int, *options: str, start: str = "origin", timeout_s: float = COMMAND_S) -> Ran:
    """Move *pid* from *start* to the other host; it must succeed, and be told so truthfully."""
    end = MOVERS[1 - MOVERS.index(start)]
    moved = run_migrate(lab.hosts[start], *options, pid, end, timeout_s=timeout_s)
    assert moved.status == 0, json.dumps(moved.report, indent=1) + moved.stderr
    assert moved.report["outcome"] == "MOVED"
    assert moved.report["destination_pid"] in left.processes(lab.hosts[end])
    left.assert_service_on(lab, end, all_of_it=False)
    return moved


class Held:
    """``migrate --stop-at STATE``: it waits in that state when the constructor returns, until :meth:`go`.

    :ivar driver: its PID on *host*.
    :ivar id: the migration's name, "" before there is a journal.
    """

    def __init__(
        self, host: Host, state: str, *words: object, program: str | Sequence[str] = "migrate"
    ) -> None:
        command = [program] if isinstance(program, str) else [*program]
        self.host, self._began = host, time.time()
        self.process: Popen[str] = host.popen(
            [*command, "--json", "--stop-at", state, *map(str, words)], stdout=PIPE, stderr=PIPE, text=True
        )
        self._lines: list[str] = []
        self.driver = self._stopped(state)
        script = f"grep -l '^[{{].*\"owner\": [[]{self.driver}, ' /run/migrate/*/journal"
        found = host.exec(["sh", "-c", script], check=False).stdout
        self.id = found.split("/")[3] if found else ""

    def _stopped(self, state: str) -> int:
        """The driver's PID, as it says when it has stopped."""
        note = self._until(lambda event: str(event.get("text", "")).startswith(f"stopped at {state}"))
        return int(note["text"].split("(driver ")[1].rstrip(")"))

    def _until(self, wanted: Callable[[Event], bool]) -> Event:
        """The next event that is wanted. What is read with a buffer is read with it to the end."""
        assert self.process.stdout is not None and self.process.stderr is not None
        for line in self.process.stdout:
            self._lines.append(line)
            if wanted(event := json.loads(line)):
                return dict(event)
        raise AssertionError(f"{self._lines[-1:]} {self.process.stderr.read()}")

    def go(self) -> None:
        """Let it go on."""
        # It may have seen by itself what was done to it meanwhile, and be over.
        self.host.exec(["touch", f"/run/migrate/{self.id}/go"], check=False)

    def terminate(self) -> None:
        """SIGTERM, as a shell would send it."""
        self.process.terminate()

    def signal(self, name: str) -> None:
        """A signal for the driver, e.g. "INT"."""
        self.host.exec(["kill", f"-{name}", str(self.driver)])

    def end(self) -> Ran:
        """Wait for its own end: what it said from its beginning on."""
        self._until(lambda event: event["event"] == "report")
        status = self.process.wait(DEADLINE_S)
        assert self.process.stderr is not None
        return ran(status, "".join(self._lines), self.process.stderr.read(), self._began, time.time())

    def killed(self) -> None:
        """It was killed; reap it."""
        self.process.wait(DEADLINE_S)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def stop(self) -> None:
        """Nothing of it runs afterwards."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.communicate(timeout=COMMAND_S)


def moved_although_its_agent_died(origin: Host, there: Host, *words: object) -> None:
    """The agent is killed when it was given the tree: what it had begun goes to its end, and that is told."""
    held = Held(origin, "SWITCHED", *words)
    try:
        _agent_dies_after_the_commit(held, there)
        ended = held.end()
    finally:
        held.stop()
    assert ended.status == 0 and ended.report["outcome"] == "MOVED", ended.report


def _agent_dies_after_the_commit(held: Held, there: Host) -> None:
    """Go on from SWITCHED: the agent is killed when it was given the tree, and CRIU, which stood still, goes on."""
    there.exec(["pkill", "-STOP", "-f", "^criu[: ]"])
    held.go()
    committed = ["grep", "-q", "COMMITTED", f"/run/migrate/{held.id}/journal"]
    eventually(lambda: there.exec(committed, check=False).returncode == 0, "it was given away")
    there.exec(["pkill", "-KILL", "-f", "[m]igrate-agent"])
    there.exec(["pkill", "-CONT", "-f", "^criu[: ]"])
