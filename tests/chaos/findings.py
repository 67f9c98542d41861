"""Keeps everything that may explain a finding: log, report, journals, CRIU's logs, processes of both hosts."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

from judge_run import Verdict
from trial import Trial
from world import SIDES, World

_LOOK = """
date; ps -e -ww -o pid,ppid,stat,wchan:20,lstart,args; nft list ruleset
ip address; ip rule; ip route show table all; ss -tinoeHOa
ls -laR /run/migrate /dev/shm /sys/fs/cgroup/migrate-* 2>/dev/null; tail -30 /var/log/sshd.log
"""


def keep(directory: Path, world: World, trial: Trial, verdict: Verdict) -> None:
    """Write it all to *directory*."""
    directory.mkdir(parents=True, exist_ok=True)
    log(directory / "log", world, trial, verdict)
    (directory / "report.json").write_text(json.dumps(trial.report, indent=1))
    for side in SIDES:
        with contextlib.suppress(Exception):
            done = world.host(side).exec(["sh", "-c", _LOOK], check=False)
            (directory / side).write_text(done.stdout + done.stderr)
        for place in ("run/migrate", "dev/shm"):
            _copy(world.host(side).root / place, directory / f"{side}-{place.replace('/', '-')}")


def log(path: Path, world: World, trial: Trial, verdict: Verdict) -> None:
    """What was done and said, and when."""
    text = [str(trial.plan), "", *map(str, verdict.findings), "", *world.notes, "", *trial.output]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*text, "", *verdict.recovered, ""]))


def _copy(source: Path, target: Path) -> None:
    """What is small: journals and logs, no memory."""
    with contextlib.suppress(OSError):
        for path in source.rglob("*"):
            if path.is_file() and path.stat().st_size < 1 << 20 and "pages" not in path.name:
                place = target / path.relative_to(source)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
