"""What systemd is told of a unit that leaves and of one that arrives, by a systemctl that writes it down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from migrate import limits, words
from migrate.errors import MigrateError
from migrate.processes import arriving_unit, drop_in, freezer, identity, leaving_unit, systemd
from migrate.processes.arriving_unit import PidFile
from migrate.recovery import entries, records, undo
from migrate.recovery.records import Record

UNIT = "web.service"
PROGRAM = """#!{python}
import json, pathlib, sys
here = pathlib.Path({here!r})
with (here / "calls").open("a") as calls:
    print(*sys.argv[1:], file=calls)
said = json.loads((here / "said").read_text())
if sys.argv[1] in said.get("fails", ()):
    sys.exit("Failed: no such thing")
if sys.argv[1] == "show":
    for word in sys.argv[2:]:
        name = word.removeprefix("--property=")
        if name in said:
            print(name + "=" + said[name])
print(said.get(sys.argv[1], ""), end="")
"""


class Fake:
    """A systemctl: what it says, and what it was told, without what it was asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.says()

    def says(self, **said: Any) -> None:
        (self.directory / "said").write_text(json.dumps(said))

    @property
    def told(self) -> list[str]:
        calls = self.directory / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [line for line in lines if not line.startswith("show")]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = tmp_path / "fake"
    made.mkdir()
    program = made / "systemctl"
    program.write_text(PROGRAM.format(python=sys.executable, here=str(made)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{made}:{os.environ['PATH']}")
    monkeypatch.setattr(systemd, "booted", lambda: True)
    monkeypatch.setattr(limits, "UNIT_S", 5.0)
    return Fake(made)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"{UNIT}.d" / "zz-migrate-0123456789ab.conf"


@pytest.fixture
def sleeper() -> Iterator[identity.Identity]:
    """A placeholder."""
    with subprocess.Popen(["sleep", "infinity"]) as process:
        yield identity.identity(process.pid)
        process.kill()


# --- systemd itself ----------------------------------------------------------------------------------------


def test_what_it_shows_is_what_was_asked_for(fake: Fake) -> None:
    fake.says(MainPID="7", Restart="a=b", Other="x")
    assert systemd.show(UNIT, ["MainPID", "Restart", "Missing"]) == {"MainPID": "7", "Restart": "a=b"}


def test_what_it_refuses_is_told(fake: Fake) -> None:
    fake.says(fails=["freeze"])
    with pytest.raises(MigrateError, match="^systemctl freeze web.service: Failed: no such thing$") as caught:
        systemd.freeze(UNIT)
    assert "journalctl" in caught.value.problem.hint


def test_one_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MigrateError, match="systemctl daemon-reload cannot be run"):
        systemd.reload()


def test_one_that_hangs_is_not_waited_for(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNIT_S", 0.2)
    (fake.directory / "systemctl").write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(MigrateError, match="systemctl stop web.service takes longer than 0.2 s"):
        systemd.stop(UNIT)


def test_files_are_compared_without_remarks_and_places(fake: Fake) -> None:
    fake.says(cat="# /etc/systemd/system/web.service\n[Service]\n ; old\n\n  ExecStart=/bin/a \n")
    assert systemd.files(UNIT) == ["[Service]", "ExecStart=/bin/a"]


@pytest.mark.parametrize("name", ["web.service", "a@b-1.service", "x:y\\x2d.service"])
def test_names_of_services(name: str) -> None:
    assert words.is_unit(name)


@pytest.mark.parametrize(
    "name", ["", "web", "-web.service", "a/b.service", "web.socket", "a..service", "a b.service"]
)
def test_names_that_are_none(name: str) -> None:
    assert not words.is_unit(name)


def test_a_message_that_nobody_takes_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(systemd, "_JOURNAL", str(tmp_path / "none"))
    systemd.say(UNIT, "something")


# --- it leaves ---------------------------------------------------------------------------------------------


def test_it_is_held(fake: Fake, path: Path) -> None:
    fake.says(Restart="no")
    leaving_unit.hold(UNIT, path)
    lines = path.read_text().splitlines()
    assert {"Restart=no", "SuccessExitStatus=SIGKILL", "ExecStop=", "ExecStopPost="} <= set(lines)
    assert fake.told == ["daemon-reload"]


def test_a_unit_that_would_start_again_is_not_held(fake: Fake, path: Path) -> None:
    fake.says(Restart="always")
    with pytest.raises(MigrateError, match="has Restart=always still"):
        leaving_unit.hold(UNIT, path)
    assert path.exists()  # for who undoes


def test_it_is_frozen_for_systemd_alone(fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "cgroup.freeze").write_text("1")
    leaving_unit.hold_watchdog(UNIT, tmp_path)
    assert fake.told == [f"freeze -- {UNIT}"]
    assert (tmp_path / "cgroup.freeze").read_text() == "0"


def test_it_stays(fake: Fake, path: Path) -> None:
    """Undone once, again, and where nothing was begun."""
    fake.says(Restart="no", ActiveState="active", FreezerState="frozen")
    leaving_unit.hold(UNIT, path)
    leaving_unit.stays(UNIT, path)
    assert not path.parent.exists()
    fake.says(ActiveState="active", FreezerState="running")
    leaving_unit.stays(UNIT, path)
    assert fake.told == ["daemon-reload", f"thaw -- {UNIT}", "daemon-reload"]


def test_it_stays_although_it_has_ended(fake: Fake, path: Path) -> None:
    fake.says(Restart="no", ActiveState="inactive", FreezerState="frozen")
    leaving_unit.hold(UNIT, path)
    leaving_unit.stays(UNIT, path)
    assert fake.told == ["daemon-reload", "daemon-reload"]
    (told,) = undo.changed(
        Record("0123456789ab", "origin", entries=[entries.AtUnit(UNIT, str(path), "there")])
    )
    assert told == f"{UNIT} has ended here (inactive), and was not started again: systemctl start {UNIT}"
    fake.says(ActiveState="active")
    assert leaving_unit.ended(UNIT) == ""


def test_it_is_gone_when_systemd_has_seen_it(fake: Fake, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(systemd, "say", lambda unit, text: said.append(text))
    fake.says(Restart="no", MainPID="77", ActiveState="active", SubState="running")
    leaving_unit.hold(UNIT, path)
    monkeypatch.setattr(limits, "UNIT_S", 2.0)
    with pytest.raises(MigrateError, match="has not seen the end of web.service, which is active/running"):
        leaving_unit.gone(UNIT, path, "there", 77)
    assert path.exists()
    monkeypatch.setattr(limits, "UNIT_S", 5.0)
    fake.says(MainPID="0", ActiveState="inactive")
    leaving_unit.gone(UNIT, path, "there", 77)
    leaving_unit.gone(UNIT, path, "there", 77)
    assert not path.exists()
    assert said == ["web.service was moved to there by migrate, and is stopped here for that"]


def test_somebody_has_started_it_again(fake: Fake, path: Path) -> None:
    fake.says(Restart="no", MainPID="78", ActiveState="active")
    leaving_unit.hold(UNIT, path)
    leaving_unit.gone(UNIT, path, "there", 77)
    assert not path.exists()


# --- it arrives --------------------------------------------------------------------------------------------


def in_one_cgroup(monkeypatch: pytest.MonkeyPatch, *pids: int) -> None:
    """Those are in the unit's."""
    monkeypatch.setattr(freezer, "mount_point", lambda: None)
    monkeypatch.setattr(freezer, "cgroup_of", lambda _, pid: Path("/unit" if pid in pids else "/other"))


def test_a_placeholder_is_started(
    fake: Fake, path: Path, monkeypatch: pytest.MonkeyPatch, sleeper: identity.Identity
) -> None:
    in_one_cgroup(monkeypatch, sleeper[0])
    start = "{ path=/usr/sbin/web ; argv[]=/usr/sbin/web -g ; ignore_errors=no }"
    fake.says(MainPID=str(sleeper[0]), ActiveState="activating", ExecStart=start)
    placeholder = arriving_unit.begin(UNIT, path, frozenset())
    assert (placeholder.process, placeholder.cgroup) == (sleeper, Path("/unit"))
    assert fake.told == ["daemon-reload", f"start --no-block -- {UNIT}"]
    lines = path.read_text().splitlines()
    assert {"Type=notify", "SyslogIdentifier=web", "ExecStop=", "Restart=no"} <= set(lines)
    assert [one for one in lines if one.startswith("ExecStart=+")][0].endswith("/sleep infinity")
    placeholder.check()
    identity.end([sleeper])
    with pytest.raises(MigrateError, match="the placeholder of web.service .* has ended"):
        placeholder.check()


@pytest.mark.parametrize("state", ["failed", "inactive"])
def test_one_that_does_not_start_is_told(fake: Fake, path: Path, state: str) -> None:
    fake.says(MainPID="0", ActiveState=state, Result="exit-code", ConditionResult="no")
    with pytest.raises(MigrateError, match="does not start web.service there: Result=exit-code"):
        arriving_unit.begin(UNIT, path, frozenset())
    arriving_unit.undo(UNIT, path)
    arriving_unit.undo(UNIT, path)
    assert not path.parent.exists()
    assert fake.told[2:] == [f"stop -- {UNIT}", f"reset-failed -- {UNIT}", "daemon-reload"]


def test_streams_that_lead_elsewhere_are_told(
    fake: Fake, path: Path, monkeypatch: pytest.MonkeyPatch, sleeper: identity.Identity
) -> None:
    in_one_cgroup(monkeypatch, sleeper[0])
    fake.says(MainPID=str(sleeper[0]), ActiveState="activating")
    with pytest.raises(MigrateError, match="descriptor 1 of web.service does not lead to the journal there"):
        arriving_unit.begin(UNIT, path, frozenset({1, 2}))


@pytest.fixture
def root() -> Iterator[int]:
    """A restored process."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process.pid
        process.kill()


def test_the_restored_process_is_the_main_one(
    fake: Fake, path: Path, monkeypatch: pytest.MonkeyPatch, sleeper: identity.Identity, root: int
) -> None:
    in_one_cgroup(monkeypatch, sleeper[0], root)
    monkeypatch.setattr(limits, "ORPHANED_S", 0.0)
    sent: list[tuple[int, str]] = []

    def heard(sender: int, message: str) -> None:
        sent.append((sender, message))
        fake.says(MainPID=str(root), ActiveState="active")

    monkeypatch.setattr(systemd, "notify", heard)
    fake.says(MainPID=str(sleeper[0]), ActiveState="activating")
    path.parent.mkdir()
    path.touch()
    number = path.parents[1] / "web.pid"
    entry = entries.OfUnit(UNIT, str(path), "here", str(number), os.getuid(), os.getgid(), 0o640, *sleeper)
    record = Record("0123456789ab", "destination", root, entries=[entry])
    assert undo.tidy_destination(record) == []
    assert sent == [(sleeper[0], f"MAINPID={root}\nREADY=1")]
    assert (number.read_text(), number.stat().st_mode & 0o777) == (f"{root}\n", 0o640)
    assert not identity.alive(sleeper)
    assert identity.alive(identity.identity(root))
    assert not path.exists()
    assert undo.tidy_destination(record) == []  # once more
    assert len(sent) == 1


def test_a_stranger_does_not_become_the_main_process(
    fake: Fake, path: Path, monkeypatch: pytest.MonkeyPatch, sleeper: identity.Identity, root: int
) -> None:
    in_one_cgroup(monkeypatch, sleeper[0])
    fake.says(MainPID=str(sleeper[0]), ActiveState="activating")
    path.parent.mkdir()
    path.touch()
    entry = entries.OfUnit(UNIT, str(path), "here", "", 0, 0, 0, *sleeper)
    (problem,) = undo.tidy_destination(Record("0123456789ab", "destination", root, entries=[entry]))
    assert "is not in web.service" in problem
    assert path.exists()


def test_one_that_has_ended_since_takes_the_unit_with_it(
    fake: Fake, path: Path, sleeper: identity.Identity
) -> None:
    path.parent.mkdir()
    path.touch()
    arriving_unit.adopt(UNIT, path, sleeper, 1 << 23, PidFile(), "here")
    assert fake.told[0] == f"stop -- {UNIT}"
    assert not path.exists()


def test_a_number_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "web.pid").symlink_to(tmp_path / "else")
    with pytest.raises(OSError):
        arriving_unit._write(PidFile(str(tmp_path / "web.pid"), os.getuid(), os.getgid(), 0o644), 7)
    assert not (tmp_path / "else").exists()


# --- by the journal ----------------------------------------------------------------------------------------


def test_who_undoes_reads_both_from_the_journal() -> None:
    for entry in (
        entries.AtUnit(UNIT, "/run/a", "there"),
        entries.OfUnit(UNIT, "/run/a", "here", "/run/web.pid", 0, 0, 0o644, 7, 8),
    ):
        line = json.loads(json.dumps(entry.line()))
        assert records._entry(line) == entry


def test_places_are_below_run() -> None:
    place = drop_in.place(UNIT, "0123456789ab")
    assert place == Path("/run/systemd/system/web.service.d/zz-migrate-0123456789ab.conf")
