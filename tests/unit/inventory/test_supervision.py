"""Who waits for a process at the origin and may start it again: found, refused, or told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import inventories as two
import pytest

from migrate.checks import around
from migrate.inventory import supervision
from migrate.pb.session_pb2 import Supervisor

#: A program that starts another, says its number, and waits for it.
PARENT = "import subprocess; p = subprocess.Popen(['sleep', '1000']); print(p.pid, flush=True); p.wait()"


@pytest.fixture
def child() -> Iterator[tuple[int, int]]:
    """A process and the parent that waits for it."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        yield pid, parent.pid
        os.kill(pid, 9)


def test_a_parent(child: tuple[int, int]) -> None:
    pid, parent = child
    (found,) = supervision.supervisors(pid, {pid})
    assert (found.pid, found.unit, found.starts_nothing) == (parent, "", False)
    assert found.comm.startswith("python")


def test_a_parent_that_moves_too(child: tuple[int, int]) -> None:
    assert supervision.supervisors(child[0], set(child)) == []


@pytest.mark.parametrize(
    ("cgroup", "unit", "by_user"),
    [
        ("0::/system.slice/nginx.service\n", "nginx.service", False),
        ("0::/system.slice/a.slice/postgresql@17-main.service\n", "postgresql@17-main.service", False),
        ("0::/system.slice/own.service/worker/migrate-0123\n", "own.service", False),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/a.service\n", "a.service", True),
        ("0::/user.slice/user-1000.slice/user@1000.service/init.scope\n", "", True),
        ("0::/user.slice/user-0.slice/session-3.scope\n", "", False),
        ("12:pids:/x.service\n1:name=systemd:/system.slice/v1.service\n0::/\n", "v1.service", False),
        ("0::/\n", "", False),
        ("", "", False),
        ("nonsense\n0::no/slash.service.d\n", "", False),
    ],
)  # fmt: skip
def test_the_unit_of_a_cgroup(cgroup: str, unit: str, by_user: bool) -> None:
    found = supervision.unit_of(cgroup)
    assert found[0] == unit
    assert not unit or found[1] == by_user


def systemctl(monkeypatch: pytest.MonkeyPatch, directory: Path, unit: str, says: str) -> None:
    """From now on this host has a systemd that says this, and everything is in *unit*."""
    program = directory / "systemctl"
    program.write_text(f"#!/bin/sh\nprintf '{says}'\necho \"$@\" > {directory}/asked\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    monkeypatch.setattr(supervision, "_BOOTED", directory)
    monkeypatch.setattr(supervision, "unit_of", lambda _: (unit, False))


@pytest.mark.parametrize("restart", ["always", "no"])
def test_the_main_process_of_a_unit(
    child: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, restart: str
) -> None:
    systemctl(monkeypatch, tmp_path, "a.service", f"MainPID={child[0]}\\nRestart={restart}\\n")
    (found,) = supervision.supervisors(child[0], {child[0]})
    assert (found.unit, found.restart) == ("a.service", restart)
    assert (tmp_path / "asked").read_text().split() == [
        "show", "--property=MainPID", "--property=Restart", "--", "a.service",
    ]  # fmt: skip


def test_another_process_of_a_unit(
    child: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a worker of gunicorn: its master waits for it, not systemd."""
    systemctl(monkeypatch, tmp_path, "a.service", "MainPID=1\\nRestart=always\\n")
    (found,) = supervision.supervisors(child[0], {child[0]})
    assert (found.unit, found.pid) == ("", child[1])


@pytest.mark.parametrize("says", ["", "Failed to connect to bus", "MainPID=x\\nRestart=no\\n"])
def test_a_systemd_that_does_not_answer(
    child: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: str
) -> None:
    systemctl(monkeypatch, tmp_path, "a.service", says)
    (found,) = supervision.supervisors(child[0], {child[0]})
    assert (found.unit, found.pid) == ("", child[1])


# --- what is said ----------------------------------------------------------------------------------------

PYTHON = {"pid": 50, "comm": "gunicorn"}
UNIT = {"pid": 1, "comm": "systemd", "unit": "a.service"}


def told(leave: bool = False, **fields: Any) -> tuple[list[str], list[str]]:
    """Codes of refusals, and notes."""
    process = two.process(supervisors=[Supervisor(**fields)])
    return [one.code for one in two.reasons(process, leave_supervisor=leave)], around.notes(
        process, two.destination()
    )


@pytest.mark.parametrize(
    "fields",
    [
        PYTHON,
        UNIT,
        *(UNIT | {"restart": word} for word in ("always", "on-failure", "on-abnormal", "on-abort")),
    ],
)
def test_whoever_may_start_it_again_is_a_reason(fields: dict[str, Any]) -> None:
    codes, notes = told(**fields)
    assert codes == ["supervised"]
    assert told(leave=True, **fields) == ([], notes)
    assert "will see it die by SIGKILL here" in notes[0]


@pytest.mark.parametrize(
    "fields",
    [
        PYTHON | {"starts_nothing": True},
        PYTHON | {"pid": 400},  # who has started migrate, too
        *(UNIT | {"restart": word} for word in ("no", "on-success", "on-watchdog")),
    ],
)
def test_whoever_starts_nothing_is_only_told_of(fields: dict[str, Any]) -> None:
    codes, notes = told(**fields)
    assert (codes, len(notes)) == ([], 1)


def test_the_words() -> None:
    process = two.process(supervisors=[Supervisor(**PYTHON)])
    reason = two.only(two.reasons(process))
    assert reason.text.startswith("gunicorn (PID 50), the parent of nginx (PID 100), will see it die here")
    assert "name PID 50" in reason.remedy and "--leave-supervisor" in reason.remedy
    process = two.process(supervisors=[Supervisor(**UNIT, restart="always", of_user=True)])
    reason = two.only(two.reasons(process))
    assert "nginx (PID 100) is the main process of a.service (Restart=always)" in reason.text
    assert "systemctl --user daemon-reload" in reason.remedy
