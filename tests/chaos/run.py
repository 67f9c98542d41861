"""``run.py``: chaos for so many minutes or runs. One line a run; findings are kept in a directory each.

Exit status 1 if there was a finding. See README.md in this directory.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import faults  # noqa: E402
import findings  # noqa: E402
import plan  # noqa: E402
from judge_run import Verdict, judge  # noqa: E402
from trial import Trial  # noqa: E402
from world import World  # noqa: E402


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, help="begin no run after so many")
    parser.add_argument("--runs", type=int, help="so many runs in all")
    parser.add_argument("--seed", type=int, help="the first seed; the others follow")
    parser.add_argument("--jobs", type=int, default=1, help="labs at once")
    parser.add_argument("--findings", type=Path, default=Path("/tmp/chaos-findings"))
    parser.add_argument("--step", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--list", action="store_true", help="only print the plans")
    return parser.parse_args()


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the lab is taken down
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1, 10**6) * 1000
    if options.minutes is None and options.runs is None:
        options.minutes = 10.0
    if options.jobs > 1:
        return _several(options)
    return _one(options)


def _several(options: argparse.Namespace) -> int:
    """A process for each lab; each takes its share of the seeds."""
    jobs = []
    for number in range(options.jobs):
        words = [sys.executable, __file__, "--seed", str(options.seed + number), "--step", str(options.jobs)]
        words += ["--findings", str(options.findings)]
        if options.minutes is not None:
            words += ["--minutes", str(options.minutes)]
        if options.runs is not None:
            share = len(range(number, options.runs, options.jobs))
            words += ["--runs", str(share)]
        jobs.append(subprocess.Popen(words))
    return max(job.wait() for job in jobs)


def _one(options: argparse.Namespace) -> int:
    until = time.monotonic() + 60 * options.minutes if options.minutes is not None else float("inf")
    seeds = itertools.count(options.seed, options.step)
    world: World | None = None
    done, found = 0, 0
    try:
        for seed in itertools.islice(seeds, options.runs):
            if time.monotonic() > until:
                break
            drawn = plan.draw(seed, faults.drawn_from())
            if options.list:
                print(_planned(drawn))
                continue
            world = world or World(f"chaos-{os.getpid()}")
            verdict = _run(world, drawn, options.findings)
            done, found = done + 1, found + bool(verdict.findings)
            if verdict.findings:
                world.close()
                world = None
    finally:
        if world is not None:
            world.close()
    if not options.list:
        print(f"{done} runs, {found} with findings", flush=True)
    return int(found > 0)


def _planned(drawn: plan.Plan) -> str:
    held = f"held at {drawn.stop_at} for {drawn.go_ms} ms" if drawn.stop_at else "free"
    return (
        f"seed {drawn.seed}  {held}{', keeper' if drawn.keeper else ''}  {'; '.join(map(str, drawn.blows))}"
    )


def _run(world: World, drawn: plan.Plan, directory: Path) -> Verdict:
    """One run and its line."""
    began = time.monotonic()
    trial = Trial(world, drawn)
    kept = directory / f"seed-{drawn.seed}"
    shutil.rmtree(kept, ignore_errors=True)
    try:
        world.bench.ready()
        trial.run()
        verdict = judge(world, trial)
    except Exception as error:  # the tool's own fault, most likely; it must not hide
        verdict = Verdict(findings=[f"the tool: {type(error).__name__}: {error}"])
        world.note(traceback.format_exc())
    findings.log(directory / "logs" / f"seed-{drawn.seed}", world, trial, verdict)
    if verdict.findings:
        findings.keep(kept, world, trial, verdict)
    else:
        world.bench.at = verdict.where if verdict.copies else ""
        if not verdict.copies:
            world.bench.stop()
    print(_line(drawn, trial, verdict, time.monotonic() - began), flush=True)
    for one in verdict.findings:
        print(f"    FINDING {one}", flush=True)
    return verdict


def _line(drawn: plan.Plan, trial: Trial, verdict: Verdict, took_s: float) -> str:
    missed = "".join(f" (missed: {blow.fault} {blow.how}: {why})" for blow, why in trial.missed.items())
    words = [
        _planned(drawn) + missed,
        f"{verdict.outcome}{' recovered' if verdict.recovered else ''}",
        f"{verdict.copies} on {verdict.where or 'none'}",
        f"silence {verdict.silence_ms:.0f} ms",
        f"clean {verdict.clean_s:.1f} s, took {took_s:.0f} s",
        "FINDINGS" if verdict.findings else "; ".join(["ok", *verdict.slow]),
    ]
    return "  |  ".join(words)


if __name__ == "__main__":
    sys.exit(main())
