"""All reasons why a unit of systemd cannot be moved as one, and what is noted of it. Pure."""

from __future__ import annotations

from typing import Any

import pytest
from inventories import destination, origin, process

from migrate.checks import around, reconnections, units
from migrate.checks.reasons import refusals
from migrate.checks.subject import Subject
from migrate.pb.session_pb2 import HostInventory, Obstacle, ProcessInventory, Reconnection, Supervisor, Unit
from migrate.processes import systemd
from migrate.request import Along

USUAL = {
    "Type": "simple",
    "Restart": "always",
    "FreezerState": "running",
    "Transient": "no",
    "Delegate": "no",
    "TriggeredBy": "",
    "UpheldBy": "",
    "OnSuccess": "",
}
NAME = "web.service"


def moved(properties: dict[str, str] | None = None, **more: Any) -> ProcessInventory:
    """The main process of a unit that can be moved, with *more*."""
    return process(unit=Unit(name=NAME, properties=USUAL | (properties or {}), **more))


def codes(of: ProcessInventory, there: HostInventory | None = None) -> list[str]:
    """Of all reasons of units, each of which has a remedy."""
    found = list(units.described(Subject(of, HostInventory(), there or HostInventory(pid_max=1 << 22))))
    assert all(one.text and one.remedy for one in found)
    return [one.code for one in found]


def test_one_that_can_be_moved() -> None:
    for kind in ("simple", "exec", "idle", "forking", "notify", "notify-reload"):
        assert codes(moved({"Type": kind})) == []


def test_what_is_moved_by_its_pid_has_no_reason() -> None:
    assert codes(process()) == []


@pytest.mark.parametrize(
    ("properties", "code"),
    [
        ({"Type": "dbus"}, "unit-type"),
        ({"Type": "oneshot"}, "unit-type"),
        ({"Transient": "yes"}, "unit-transient"),
        ({"Delegate": "yes"}, "unit-delegated"),
        ({"FreezerState": "frozen"}, "unit-frozen"),
        ({"FreezerState": ""}, "unit-frozen"),
        ({"TriggeredBy": "web.timer web.socket"}, "unit-sockets"),
        ({"UpheldBy": "all.target"}, "unit-triggers"),
        ({"OnSuccess": "after.service"}, "unit-triggers"),
        ({"DynamicUser": "yes"}, "unit-sandbox"),
    ],
)
def test_a_reason(properties: dict[str, str], code: str) -> None:
    assert codes(moved(properties)) == [code]


def test_a_timer_starts_it_as_it_would_without_a_move() -> None:
    assert codes(moved({"TriggeredBy": "web.timer"})) == []


def test_a_sandbox_is_told_by_the_names_of_its_directives() -> None:
    of = moved({"PrivateTmp": "yes", "ProtectSystem": "full"}, namespaces=["mnt"])
    (found,) = units.described(Subject(of, HostInventory(), HostInventory(pid_max=1 << 22)))
    assert found.code == "unit-sandbox"
    assert "(mnt), by PrivateTmp=, ProtectSystem=" in found.text


def test_what_its_main_process_has_not_started_stays() -> None:
    assert codes(moved(others=["sd-pam (PID 7)"])) == ["unit-others"]


def test_its_numbers_have_to_be_free() -> None:
    there = HostInventory(taken_pids=[100], pid_max=1 << 22, taken_by={100: "cat"})
    assert codes(moved(), there) == ["unit-pids"]


def test_what_the_destination_says_is_a_reason() -> None:
    there = destination()
    there.refusals.add(code="unit-runs", text=f"{NAME} is active there", remedy=f"systemctl stop {NAME}")
    assert [one.code for one in refusals(moved(), origin(), there, Along())] == ["unit-runs"]


def test_that_its_files_differ_is_noted() -> None:
    assert units.notes(moved(), HostInventory()) == []
    assert "say something else" in units.notes(moved(), HostInventory(unit_differs=True))[0]
    assert units.notes(process(), HostInventory(unit_differs=True)) == []


def test_a_stream_to_the_journal_is_the_unit_s_or_is_made_anew() -> None:
    """Never both, nor neither: CRIU would take one, and nobody knows which."""
    known = [
        Reconnection(inode=inode, pid=100, fd=fd, name=systemd.STREAMS) for inode, fd in ((71, 1), (72, 5))
    ]
    outside = [Obstacle(code="unix-outside", pid=100, fd=one.fd, what=one.name) for one in known]
    of = moved(streams={71: 1})
    of.reconnections.extend(known)
    of.obstacles.extend(outside)
    assert [one.inode for one in reconnections.made_anew(of, Along())] == [72]
    plain = process(reconnections=known, obstacles=outside)
    assert [one.inode for one in reconnections.made_anew(plain, Along())] == [71, 72]


# --- what is told of a unit whose process is named by its PID ----------------------------------------------


def supervised(**more: Any) -> ProcessInventory:
    return process(supervisors=[Supervisor(pid=1, comm="systemd", unit=NAME, **more)])


def reasons_of(of: ProcessInventory) -> list[Any]:
    return list(around.unsupervised(Subject(of, HostInventory(), HostInventory())))


def test_its_remedy_is_to_move_it_as_a_unit() -> None:
    (found,) = reasons_of(supervised(restart="always"))
    assert found.remedy.startswith(f"Move it as what it is: migrate --unit {NAME} HOST.")
    assert "--unit" in around.notes(supervised(restart="no"), HostInventory())[0]


def test_a_user_s_unit_cannot_be_named() -> None:
    (found,) = reasons_of(supervised(restart="always", of_user=True))
    assert "--unit" not in found.remedy
    assert "--unit" not in around.notes(supervised(restart="no", of_user=True), HostInventory())[0]


def test_systemd_that_is_told_is_no_supervisor() -> None:
    of = moved()
    of.supervisors.add(pid=1, comm="systemd", unit=NAME, restart="always")
    of.cgroups.add(path="/system.slice/web.service", limits=["memory.max 1"])
    assert reasons_of(of) == []
    assert around.notes(of, HostInventory()) == []
    of.supervisors[0].unit = "other.service"
    assert [one.code for one in reasons_of(of)] == ["supervised"]
