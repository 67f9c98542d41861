"""What is looked at of a unit of systemd, on either host, with a systemctl that says it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from migrate import words
from migrate.errors import MigrateError, ProtocolError, Refused, UsageError
from migrate.inventory import of_unit, unit_there
from migrate.link import message_checks
from migrate.origin import united
from migrate.pb.session_pb2 import HostInventory, Obstacle, ProcessInventory, Unit
from migrate.processes import freezer, systemd
from migrate.request import Named, Request

UNIT = "web.service"
STOPPED = {"LoadState": "loaded", "ActiveState": "inactive", "TriggeredBy": "", "DynamicUser": "no"}


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What systemd says of the unit; its files are empty."""
    said = dict(STOPPED)
    monkeypatch.setattr(systemd, "booted", lambda: True)
    monkeypatch.setattr(systemd, "show", lambda unit, names: {one: said[one] for one in names if one in said})
    monkeypatch.setattr(systemd, "files", lambda unit: ["[Service]"])
    monkeypatch.setattr(freezer, "mount_point", lambda: freezer.MountPoint(Path("/sys/fs/cgroup"), ""))
    return said


def codes(**more: Any) -> list[str]:
    found = HostInventory()
    unit_there.answer(Unit(name=UNIT, files=more.get("files", of_unit.digest(UNIT))), found)
    assert all(one.text and one.remedy for one in found.refusals)
    return [one.code for one in found.refusals] + ["differs"] * found.unit_differs


def test_a_unit_that_may_come(says: dict[str, str]) -> None:
    assert codes() == []
    assert codes(files=b"other") == ["differs"]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"LoadState": "not-found"}, "no-unit"),
        ({"LoadState": "masked"}, "no-unit"),
        ({"ActiveState": "active"}, "unit-runs"),
        ({"ActiveState": "activating"}, "unit-runs"),
        ({"TriggeredBy": "web.timer web.socket"}, "unit-sockets"),
        ({"ProtectSystem": "full"}, "unit-sandbox"),
    ],
)
def test_a_reason_against_it(says: dict[str, str], said: dict[str, str], code: str) -> None:
    says.update(said)
    assert codes() == [code]


def test_a_host_without_systemd(says: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "booted", lambda: False)
    assert codes() == ["no-systemd"]


def test_a_systemd_that_does_not_answer(says: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(unit: str, names: Any) -> dict[str, str]:
        raise MigrateError("systemctl show: no", hint="Look.")

    monkeypatch.setattr(systemd, "show", fails)
    assert codes() == ["no-systemd"]


def test_a_host_without_cgroups_of_version_2(says: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> freezer.MountPoint:
        raise freezer.Unavailable("no cgroup v2 is mounted")

    monkeypatch.setattr(freezer, "mount_point", none)
    assert codes() == ["cgroup-version"]


def test_standard_streams_to_the_journal_are_no_obstacle() -> None:
    """Those of the main process; any other is."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inode = os.fstat(ours.fileno()).st_ino
        pid, fd = os.getpid(), ours.fileno()
        to_journal = Obstacle(code="unix-outside", pid=pid, fd=fd, what=systemd.STREAMS)
        elsewhere = Obstacle(code="unix-outside", pid=pid, fd=fd, what="/run/other")
        other = Obstacle(code="unix-outside", pid=pid, fd=theirs.fileno(), what=systemd.STREAMS)
        assert list(of_unit.but_streams({inode}, [to_journal, elsewhere, other])) == [elsewhere, other]


def test_what_leads_elsewhere_is_no_stream_of_the_unit() -> None:
    """It is left to be made anew, or is an obstacle: the unit there has nothing in its place."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pid, streams = os.getpid(), [os.fstat(one.fileno()).st_ino for one in (ours, theirs)]
        found = ProcessInventory(unit=Unit(name=UNIT, streams=dict(zip(streams, (1, 2), strict=True))))
        for one, what in (ours, systemd.STREAMS), (theirs, "/run/other"):
            found.obstacles.add(code="unix-outside", pid=pid, fd=one.fileno(), what=what)
        of_unit.leave_out(found)
    assert found.unit.streams == {streams[0]: 1}
    assert [one.what for one in found.obstacles] == ["/run/other"]


# --- by its name -------------------------------------------------------------------------------------------


def named(unit: str = UNIT) -> Request:
    return Request(pid=0, host="there", named=Named(unit=unit))


def test_it_is_its_main_process(says: dict[str, str]) -> None:
    says.update(MainPID="77", ActiveState="active", SubState="running")
    assert united.resolved(named()).pid == 77
    assert united.resolved(Request(pid=5, host="there")).pid == 5


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"LoadState": "not-found"}, "no-such-unit"),
        ({"ActiveState": "inactive", "MainPID": "0"}, "unit-not-running"),
        ({"ActiveState": "reloading", "SubState": "reload", "MainPID": "7"}, "unit-not-running"),
        ({"ActiveState": "active", "SubState": "exited", "MainPID": "0"}, "unit-not-running"),
    ],
)
def test_one_that_has_none(says: dict[str, str], said: dict[str, str], code: str) -> None:
    says.update(said)
    with pytest.raises(Refused) as caught:
        united.resolved(named())
    assert [one.code for one in caught.value.reasons] == [code]


def test_no_systemd_here(says: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "booted", lambda: False)
    with pytest.raises(Refused):
        united.resolved(named())


def test_service_may_be_left_out() -> None:
    assert words.unit("nginx") == "nginx.service"
    assert words.unit("a@b.service") == "a@b.service"
    for wrong in ("", "-x", "a/b", "a.socket/", "a b", "a..b"):
        with pytest.raises(UsageError):
            words.unit(wrong)


@pytest.mark.parametrize(
    "unit",
    [
        Unit(name="../x.service"),
        Unit(name="a.socket"),
        Unit(name=UNIT, streams={7: 3}),
        Unit(name=UNIT, mode=0o4755),
    ],
)
def test_what_no_origin_says_is_not_taken(unit: Unit) -> None:
    with pytest.raises(ProtocolError):
        message_checks.check(ProcessInventory(unit=unit))


def test_what_an_origin_says_is_taken() -> None:
    message_checks.check(ProcessInventory(unit=Unit(name=UNIT, streams={7: 1, 8: 2}, mode=0o644)))
