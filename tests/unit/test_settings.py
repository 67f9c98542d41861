"""Configuration: what is in force, from where, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from migrate import cli, settings
from migrate.report import observer as ui
from migrate.report.report import Outcome, Report
from migrate.request import Along, Request, Way

SAVES = """#!/bin/sh
cat > {file}
exit {status}
"""


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Path]:
    """Where the two files are."""
    found = {"system": tmp_path / "etc/config.toml", "user": tmp_path / "home/.config/migrate/config.toml"}
    for path in found.values():
        path.parent.mkdir(parents=True)
    monkeypatch.setattr(settings, "SYSTEM", found["system"])
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return found


def asked(*words: str) -> tuple[Request, Report]:
    """What was asked for, and the report."""
    seen: list[Request] = []
    report = Report(outcome=Outcome.MOVED)

    def run(request: Request, observer: ui.Observer) -> Report:
        seen.append(request)
        return report

    assert cli.main(words, run=run) == 0
    return seen[0], report


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    def run(request: Request, observer: ui.Observer) -> Report:
        raise AssertionError("was called")

    assert cli.main(words, run=run) == 2
    return capsys.readouterr().err


def test_nothing_is_configured() -> None:
    assert asked("42", "h")[0] == Request(pid=42, host="h")


def test_the_nearer_word_is_in_force(places: dict[str, Path]) -> None:
    places["system"].write_text(
        '[options]\ntransport = "ssh"\ntimeout = 30\ncopy-files = true\nmax-gap = 5\n[host.h]\nport = 22\n'
    )
    places["user"].write_text('[options]\ntimeout = 40\n[host.h]\nport = 2222\nagent = "/opt/a"\n')
    request, _ = asked("--max-gap", "3", "42", "root@h")
    assert request == Request(
        pid=42,
        host="root@h",
        along=Along(copy_files=True),
        timeout_s=40,
        max_gap_s=3,
        way=Way(transport="ssh", port=2222, agent="/opt/a"),
    )
    assert asked("--unit", "web", "h")[0].way.port == 2222
    assert asked("--check", "--unit", "web")[0].way.port is None
    other, _ = asked("42", "other")
    assert (other.way, other.max_gap_s) == (Way(transport="ssh"), 5)
    assert asked("--no-config", "42", "h")[0] == Request(pid=42, host="h")


def test_what_may_be_said_again_is_added(places: dict[str, Path]) -> None:
    places["system"].write_text('[options]\naddress = ["10.0.0.1"]\n')
    assert asked("--address", "10.0.0.2", "42", "h")[0].along.addresses == ("10.0.0.1", "10.0.0.2")


def test_a_check_says_what_is_in_force_from_where(places: dict[str, Path]) -> None:
    places["system"].write_text(
        '[options]\ntransport = "ssh"\nmax-gap = 5\n[hooks]\nbefore = [["/bin/false"]]\n'
    )
    places["user"].write_text("[host.h]\nport = 2222\n")
    _, report = asked("--check", "--max-gap", "3", "42", "h")
    assert report.notes == [
        f"{places['system']}: --transport ssh",
        f"{places['user']}: --port 2222",
        f"{places['system']}: hook before /bin/false",
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[option]\n", "option is not known"),
        ('[options]\ntransprt = "ssh"\n', "options.transprt is not known"),
        ("[options]\ncheck = true\n", "options.check is not known"),
        ("[host.h]\nhost = 1\n", "host.h.host is not known"),
        ("[hooks]\nduring = []\n", "hooks.during is not known"),
        ("options = 1\n", "options is no table"),
        ("[host]\nh = 1\n", "host.h is no table"),
        ("[options]\ncopy-files = 1\n", "options.copy-files is true or false"),
        ('[options]\naddress = "10.0.0.1"\n', "options.address is a list of strings"),
        ("[options]\nport = true\n", "options.port is a string or a number"),
        ('[hooks]\nbefore = ["/bin/true"]\n', "a list of commands"),
        ('[hooks]\nafter = [["true"]]\n', "begins with the path of its program"),
        ("[options\n", "is no TOML"),
    ],
)
def test_what_is_not_known_is_refused(
    places: dict[str, Path], text: str, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places["user"].write_text(text)
    said = refused(["42", "h"], capsys)
    assert wanted in said and str(places["user"]) in said and "--no-config" in said


def test_a_value_is_judged_as_on_the_command_line(
    places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    places["user"].write_text('[options]\ntransport = "telnet"\n')
    assert "--transport is one of" in refused(["42", "h"], capsys)
    places["user"].write_bytes(b"\xff")
    assert "no text in UTF-8" in refused(["42", "h"], capsys)


def test_what_others_may_write_is_refused(
    places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    places["system"].write_text("")
    places["system"].chmod(0o664)
    assert "may be written by others (mode 0664)" in refused(["42", "h"], capsys)
    places["system"].chmod(0o644)
    places["system"].parent.chmod(0o777)
    assert f"{places['system'].parent}: may be written by others" in refused(["42", "h"], capsys)
    places["system"].parent.chmod(0o755)
    os.chown(places["system"], 1000, 0)
    assert "belongs to UID 1000" in refused(["42", "h"], capsys)
    assert asked("--no-config", "42", "h")[0] == Request(pid=42, host="h")


def test_what_is_no_file_is_refused(places: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(places["user"], 0o600)
    assert "is no file of a few lines" in refused(["42", "h"], capsys)


def hook(directory: Path, name: str, status: int = 0) -> Path:
    """A program that keeps what it is told."""
    program = directory / name
    program.write_text(SAVES.format(file=directory / f"{name}.json", status=status))
    program.chmod(0o755)
    return program


def test_hooks_are_called_and_told(places: dict[str, Path], tmp_path: Path) -> None:
    first, last = hook(tmp_path, "first"), hook(tmp_path, "last")
    places["system"].write_text(f'[hooks]\nbefore = [["{first}"]]\nafter = [["{last}"]]\n')
    _, report = asked("42", "h")
    assert report.notes == []
    before, after = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("first", "last"))
    named = {"pid": 42, "process": "", "container": "", "unit": ""}
    assert before == {"schema": 1, "hook": "before", "host": "h", **named}
    assert (after.pop("report")["outcome"], after) == ("MOVED", before | {"hook": "after"})


def test_a_hook_before_that_fails_refuses(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, never = hook(tmp_path, "bad", status=7), hook(tmp_path, "never")
    places["system"].write_text(f'[hooks]\nbefore = [["{bad}"], ["{never}"]]\nafter = [["{never}"]]\n')

    def run(request: Request, observer: ui.Observer) -> Report:
        raise AssertionError("was called")

    assert cli.main(["42", "h"], run=run) == 3
    assert f"the hook {bad} ended with status 7" in capsys.readouterr().out
    assert not (tmp_path / "never.json").exists()


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ('["/nonexistent/x"]', "cannot be started: No such file"),
        ('["/bin/sh", "-c", "echo why >&2; exit 1"]', "ended with status 1: why"),
        ('["/bin/sh", "-c", "kill -9 $$"]', "died of signal 9"),
    ],
)
def test_a_hook_after_that_fails_is_a_note(places: dict[str, Path], command: str, wanted: str) -> None:
    places["system"].write_text(f"[hooks]\nafter = [{command}]\n")
    (note,) = asked("42", "h")[1].notes
    assert wanted in note


def test_what_a_hook_leaves_behind_is_not_waited_for(places: dict[str, Path], tmp_path: Path) -> None:
    """As a daemon that it starts, which has its standard error."""
    pid = tmp_path / "pid"
    places["system"].write_text(f'[hooks]\nafter = [["/bin/sh", "-c", "sleep 1000 & echo $! > {pid}"]]\n')
    try:
        assert asked("42", "h")[1].notes == []
    finally:
        os.kill(int(pid.read_text()), 9)
