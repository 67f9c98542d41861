"""Commands of the user's own before a process is moved and after it: each is told of it, as JSON on its input."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterable
from typing import Any

from migrate import limits
from migrate.errors import Reason, Refused
from migrate.request import Request
from migrate.settings import Command

#: Of what they are told: another one when a field goes or means something else.
SCHEMA = 1
_MOST_TEXT = 200
_MOST_BYTES = 1 << 16


def before(commands: Iterable[Command], request: Request) -> None:
    """Call each; nothing has been looked at yet.

    :raises Refused: one has failed; those behind it were not called.
    """
    for command in commands:
        if problem := _call(command, _told("before", request)):
            remedy = (
                "See why it fails; the configuration names it (man migrate.conf), and --no-config calls none."
            )
            raise Refused([Reason("hook-failed", "origin", problem, remedy)])


def after(commands: Iterable[Command], request: Request, report: dict[str, object]) -> list[str]:
    """Call each, whatever became of the process; a note for each that has failed.

    :param report: as `--json` has it.
    """
    told = _told("after", request) | {"report": report}
    return [problem for command in commands if (problem := _call(command, told))]


def _told(hook: str, request: Request) -> dict[str, Any]:
    named = request.named
    return {
        "schema": SCHEMA,
        "hook": hook,
        "host": request.host,
        "pid": request.pid,
        "process": named.process,
        "container": named.container,
        "unit": named.unit,
    }


def _call(command: Command, told: dict[str, Any]) -> str:
    """What went wrong, or ""."""
    name = f"the hook {command[0]}"
    try:
        # Not a pipe, whose end would be kept open by what it has started and left behind.
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(
                command,
                input=json.dumps(told).encode(),
                stdout=subprocess.DEVNULL,
                stderr=said,
                timeout=limits.HOOK_S,
                check=False,
            )
            said.seek(0)
            last = said.read(_MOST_BYTES).decode(errors="replace").strip().splitlines()[-1:]
    except subprocess.TimeoutExpired:
        return f"{name} was not done in {limits.HOOK_S:g} s, and was killed"
    except OSError as error:
        return f"{name} cannot be started: {error.strerror}"
    if done.returncode == 0:
        return ""
    how = (
        f"ended with status {done.returncode}"
        if done.returncode > 0
        else f"died of signal {-done.returncode}"
    )
    return f"{name} {how}" + (f": {last[0][:_MOST_TEXT]}" if last else "")
