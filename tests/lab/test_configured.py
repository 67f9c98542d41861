"""What a file says, and hooks before and after, in a move between real hosts."""

from __future__ import annotations

import json
import shlex

import pytest
from harness.hosts import spawn
from harness.left import processes
from harness.migrate import run_migrate

from migrate.lab import Host, Lab

pytestmark = pytest.mark.usefixtures("clean")

HOME = "/tmp/configured"


def configure(host: Host, text: str) -> list[str]:
    """Make *text* the user's file on *host*; the command that sees it, which has the same keys as else."""
    lines = [
        f"rm -rf {HOME}; mkdir -m 755 -p {HOME}/.config/migrate",
        f"ln -s ~/.ssh {HOME}/.ssh",
        f"printf %s {shlex.quote(text)} > {HOME}/.config/migrate/config.toml",
        f"chmod 644 {HOME}/.config/migrate/config.toml; chmod 755 {HOME}/.config/migrate",
    ]
    host.exec(["sh", "-ec", "\n".join(lines)])
    return ["env", f"HOME={HOME}", "migrate"]


def keeps(name: str) -> str:
    return json.dumps([["/bin/sh", "-c", f"cat > {HOME}/{name}"]])


def test_a_move_as_it_is_configured(lab: Lab) -> None:
    origin = lab.hosts["origin"]
    text = f'[options]\ntransport = "ssh"\n[hooks]\nbefore = {keeps("before")}\nafter = {keeps("after")}\n'
    program = configure(origin, text)
    pid = spawn(origin, ["sleep", "1000"])
    checked = run_migrate(origin, "--check", pid, "destination", program=program)
    assert checked.status == 0, checked.said
    assert f"{HOME}/.config/migrate/config.toml: --transport ssh" in checked.report["notes"]
    assert origin.exec(["ls", HOME]).stdout == ""
    moved = run_migrate(origin, pid, "destination", program=program)
    assert moved.status == 0, moved.said
    before, after = (
        json.loads(origin.exec(["cat", f"{HOME}/{name}"]).stdout) for name in ("before", "after")
    )
    assert (before["hook"], before["pid"], before["host"]) == ("before", pid, "destination")
    assert after["report"]["id"] == moved.report["id"]
    assert after["report"]["destination_pid"] in processes(lab.hosts["destination"])


def test_a_hook_before_that_fails_keeps_the_process_untouched(lab: Lab) -> None:
    origin = lab.hosts["origin"]
    program = configure(origin, '[hooks]\nbefore = [["/bin/sh", "-c", "echo busy >&2; exit 1"]]\n')
    pid = spawn(origin, ["sleep", "1000"])
    found = run_migrate(origin, pid, "destination", program=program)
    assert (found.status, found.codes) == (3, {("hook-failed", "origin")})
    found.must_say("origin", "ended with status 1: busy", "--no-config")
    assert pid in processes(origin)


def test_what_others_may_write_is_not_obeyed(lab: Lab) -> None:
    origin = lab.hosts["origin"]
    program = configure(origin, "")
    origin.exec(["chmod", "666", f"{HOME}/.config/migrate/config.toml"])
    found = run_migrate(origin, "1234567", "destination", program=program)
    assert found.status == 2 and "may be written by others (mode 0666)" in found.stderr
