"""What is said of one run: how many copies, their connections, what is left, and whether the report is true."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import time
from dataclasses import dataclass, field
from typing import Any

import hosts
from harness.wait import TooLate, eventually
from trial import Trial
from world import SIDES, World

#: What is left must be gone by then.
LEFT_S = 10.0
#: On a machine that others load it may take longer: still not clean by then is a finding, whoever is to blame.
LEFT_AT_LAST_S = 40.0
#: Longest silence that is right: --max-gap, the wait for somebody who died, and what a loaded machine adds.
SILENCE_S = 20.0
#: A peer that could not be reached waits up to twice as long again before it tries.
STREAMS_S = 60.0
#: From the destination's last look until the report, on a busy machine: meanwhile the origin cleans up.
LAST_LOOK_S = 0.3
STATUS = {"MOVED": 0, "UNTOUCHED": 3, "ROLLED_BACK": 4, "IN_DOUBT": 5, "ENDED": 6}


@dataclass
class Verdict:
    """:ivar findings: sentences, each of which is somebody's fault; ``slow`` ones are only late, by how much.
    :ivar recovered: what --recover said on each host, where it had to be called.
    """

    outcome: str = ""
    where: str = ""
    copies: int = 0
    silence_ms: float = 0.0
    clean_s: float = 0.0
    findings: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    recovered: list[str] = field(default_factory=list)


def judge(world: World, trial: Trial) -> Verdict:
    """Look at everything; the lab is in the state in which the run left it, healed."""
    verdict = Verdict(outcome=trial.report["outcome"] if trial.report else "no report")
    _report(trial, verdict)
    _settle(world, trial, verdict)
    _count(world, trial, verdict)
    if verdict.copies == 1:
        _streams(world, trial, verdict)
    trial.beats.end()
    if len(trial.beats.order) > len({"origin", "destination"} & set(trial.beats.order)):
        verdict.findings.append(f"ran on one host after the other: {trial.beats.order}")
    if trial.beats.order == ["destination", "origin"]:
        verdict.findings.append("ran on the destination, then on the origin")
    _true(world, trial, verdict)
    return verdict


# --- the report by itself ----------------------------------------------------------------------------------


def _report(trial: Trial, verdict: Verdict) -> None:
    said = trial.report
    if said is None:
        _no_report(trial, verdict)
        return
    killed_since = trial.status == -signal.SIGKILL and trial.hit("kill", "driver")
    if STATUS.get(said["outcome"]) != trial.status and not killed_since:
        text = f"exit status {trial.status} with outcome {said['outcome']}"
        verdict.findings.append(f"{text}: {(said['error'] or {}).get('message')}")
    if said["error"] and said["error"].get("bug"):
        verdict.findings.append(f"a bug: {said['error']['message']} {said['error']['details'][-3:]}")
    if said["outcome"] == "IN_DOUBT" and not said["instructions"]:
        verdict.findings.append("in doubt without instructions")
    if not trial.fired and said["outcome"] != "MOVED":
        verdict.findings.append(f"nothing was done to it, and yet: {said['error']}")


def _no_report(trial: Trial, verdict: Verdict) -> None:
    killed = trial.hit("kill", "driver") or trial.hit("starve", "driver") or trial.hit("interrupt", "HUP")
    if not killed:
        verdict.findings.append(f"the driver said nothing, status {trial.status}: {trial.output[-3:]}")


# --- what is left ------------------------------------------------------------------------------------------


def _settle(world: World, trial: Trial, verdict: Verdict) -> None:
    """Wait until all is clean; where a person is to do something, do it first."""
    began = time.monotonic()
    left = _wait(world, trial, LEFT_S)
    why = _person_needed(trial, verdict)
    if left and why:
        _recover(world, trial, verdict)
        left = _wait(world, trial, LEFT_S)
    if left:
        left = _wait(world, trial, LEFT_AT_LAST_S)
        if not left:
            verdict.slow.append(f"clean after {time.monotonic() - began:.1f} s")
    verdict.clean_s = time.monotonic() - began
    if left:
        verdict.findings += left
        if not why:
            verdict.findings.append("nothing says that a person is needed")
            _recover(world, trial, verdict)
            verdict.findings.append(f"after --recover: {_wait(world, trial, LEFT_S)}")


def _wait(world: World, trial: Trial, seconds: float) -> list[str]:
    """What is left after so many seconds; nothing as soon as that is so."""
    left: list[str] = []

    def is_clean() -> bool:
        left[:] = world.wrong(_where(world), trial.ids)
        return not left

    with contextlib.suppress(TooLate):
        eventually(is_clean, "clean", seconds, pause_s=0.2)
    return left


def _where(world: World) -> str:
    """The host with a copy; the destination's if both have one; "" when it is dead."""
    copies = world.copies()
    return next((side for side in reversed(SIDES) if copies[side]), "")


def _person_needed(trial: Trial, verdict: Verdict) -> str:
    """Why a person has to run --recover: the report says so, or who would have done it was hit, too."""
    said = json.dumps(trial.report) if trial.report else ""
    if verdict.outcome == "IN_DOUBT" or "migrate --recover" in said:
        return "the report says so"
    if trial.report is None:
        return "the driver said nothing"
    return ""


def _recover(world: World, trial: Trial, verdict: Verdict) -> None:
    for side in SIDES:
        began = time.monotonic()
        status, report = world.bench.migrate("--recover", host=side)
        took = time.monotonic() - began
        world.note(f"--recover on {side}: {status} in {took:.1f} s: {json.dumps(report)}")
        verdict.recovered.append(f"{side}: {status} {'; '.join(report['notes'])}")
        error = report["error"]
        if error and error["bug"]:
            verdict.findings.append(f"a bug in --recover on {side}: {error['message']}")
        elif status != 0:
            verdict.findings.append(f"--recover on {side}: {status} {report['notes']} {error}")


# --- copies and connections --------------------------------------------------------------------------------


def _count(world: World, trial: Trial, verdict: Verdict) -> None:
    copies = [one for side in SIDES for one in world.copies()[side]]
    verdict.copies = len(copies)
    verdict.where = _where(world)
    if len(copies) > 1:
        verdict.findings.append(f"{len(copies)} copies: {copies}")
    if not copies and not trial.may_have_died:
        verdict.findings.append("no copy is left, and nobody killed it")
    for one in copies:
        if hosts.stopped_for_good(one):
            verdict.findings.append(f"it does not run: {one}")


def _streams(world: World, trial: Trial, verdict: Verdict) -> None:
    began, seen = time.monotonic(), world.bench.ask()
    verdict.silence_ms = seen["longest_silence_ms"]
    waiting = dict(enumerate(seen["each_received"]))
    while waiting and time.monotonic() < began + STREAMS_S:
        time.sleep(0.1)
        seen = world.bench.ask()
        verdict.silence_ms = max(verdict.silence_ms, seen["longest_silence_ms"])
        if seen["errors"]:
            verdict.findings.append(f"connections: {seen['errors']}")
            return
        counts = seen["each_received"]
        waiting = {one: count for one, count in waiting.items() if counts[one] <= count + 8}
    if waiting:
        verdict.findings.append(f"{len(waiting)} connections are silent for {STREAMS_S} s")
    if verdict.silence_ms > 1000 * (SILENCE_S + _asked_for(trial)) and not verdict.recovered:
        verdict.findings.append(f"silent for {verdict.silence_ms:.0f} ms")
    verdict.findings += [f"callers: {one}" for one in world.problems[:3]]


def _asked_for(trial: Trial) -> float:
    """Seconds of silence that the faults themselves make: who is stopped, links that are cut."""
    total = 0.0
    for blow in trial.fired:
        last = blow.how.split()[-1] if blow.how else ""
        total += float(last) if blow.fault == "stop" else 10.0 if blow.fault in ("link", "no-sshd") else 0.0
    return total


# --- whether the report is true ----------------------------------------------------------------------------


def _true(world: World, trial: Trial, verdict: Verdict) -> None:
    said: dict[str, Any] | None = trial.report
    if said is None or said["outcome"] == "IN_DOUBT":
        return
    # One that is told to end while it is frozen does so when it runs on the destination, and was seen there.
    late = [
        blow
        for blow, at in trial.fired.items()
        if at > trial.looked_last_at() - LAST_LOOK_S or blow.fault == "exits"
    ]
    if verdict.copies == 0:
        unseen = said["where"].startswith("ran on")  # the link was lost before a last look
        if said["outcome"] != "ENDED" and "has ended" not in said["where"] and not late and not unseen:
            verdict.findings.append(f"it is dead, and the report says {said['outcome']}: {said['where']}")
        return
    found = re.search(r"on (\w+) as PID (\d+)", said["where"])
    if not found:
        verdict.findings.append(f"it runs on {verdict.where}, and the report says: {said['where']}")
        return
    side, pid = found[1], int(found[2])
    if side != verdict.where or pid != world.bench.pid:
        verdict.findings.append(f"it runs on {verdict.where} as {world.bench.pid}: {said['where']}")
    if said["where"].startswith("runs") and trial.beats.since(trial.reported_at)[side] == 0:
        verdict.findings.append(f"no beat on {side} since the report")
