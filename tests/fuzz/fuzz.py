"""`make fuzz`: every decoder of bytes from outside, with changed examples, for SECONDS or COUNT in all.

    fuzz.py [TARGET...] [--seconds S | --count N] [--seed N] [--file FILE] [--list | --corpus]

Exit status 1 if anything was found; what led to it is in tests/fuzz/crashes, and the command that repeats it is
printed. --file executes one input. --corpus writes the examples anew, beside those that once were faults.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import engine
import targets_migrate
import targets_tcpcp
from engine import CORPUS, ROOT, Run, Target

SECONDS = 60.0
TURN_S = 3.0


def all_targets(directory: Path) -> dict[str, Target]:
    """Every target by name; *directory* is empty, and theirs."""
    engine.allow(directory)
    found = [*targets_tcpcp.targets(directory), *targets_migrate.targets(directory)]
    return {target.name: target for target in found}


def write_corpus(targets: dict[str, Target]) -> None:
    """Write the examples that are made by programs."""
    for target in targets.values():
        (CORPUS / target.name).mkdir(parents=True, exist_ok=True)
        for name, data in target.seeds().items():
            (CORPUS / target.name / name).write_bytes(data)


def fuzz(targets: list[Target], rng: Random, seconds: float, count: float) -> list[Run]:
    """Run *targets* in turn, for the same time each, until *seconds* are over or *count* is reached."""
    runs = [Run(target, Random(rng.random())) for target in targets]
    end, share_s = time.monotonic() + seconds, min(seconds / len(runs), TURN_S)
    for run in runs:
        run.all_of_the_corpus()
    while time.monotonic() < end and _executions(runs) < count:
        for run in runs:
            run.go_on(seconds=min(share_s, end - time.monotonic()), count=count - _executions(runs))
        print(f"{_executions(runs)} executions", flush=True)
    for run in runs:
        print(f"{run.target.name:<16}{run.executions:>10} executions {len(run.examples):>5} examples")
    return runs


def _executions(runs: list[Run]) -> int:
    return sum(run.executions for run in runs)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--count", type=float)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--file", type=Path)
    parser.add_argument("--corpus", action="store_true")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="fuzz-") as directory:
        known = all_targets(Path(directory))
        if options.list:
            print("\n".join(known))
            return 0
        if options.corpus:
            write_corpus(known)
            return 0
        chosen = [known[name] for name in options.targets or known]
        if options.file:
            return _one(chosen[0], options.file)
        seconds = options.seconds or (SECONDS if options.count is None else float("inf"))
        print(f"seed {options.seed}")
        runs = fuzz(chosen, Random(options.seed), seconds, options.count or float("inf"))
    faults = sum(len(run.faults) for run in runs)
    print(f"{_executions(runs)} executions, {faults} faults")
    return 1 if faults else 0


def _one(target: Target, path: Path) -> int:
    data = (path if path.is_absolute() else ROOT / path).read_bytes()
    try:
        target.run(data)
    except target.errors as error:
        print(f"refused: {error}")
        return 0
    print("taken")
    return 0


if __name__ == "__main__":
    sys.exit(main())
