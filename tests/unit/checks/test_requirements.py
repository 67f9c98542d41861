"""Each requirement of a host, met or what to do."""

from __future__ import annotations

import pytest
from inventories import destination, origin

from migrate.checks.requirements import of_both, of_host

NAMES = ["root", "CRIU", "capabilities", "packet filter", "limits", "memory", "network", "journals"]


def lacking(**more: object) -> dict[str, str]:
    """What is wrong with a host that is otherwise as it should be: requirement -> remedy."""
    return {one.name: one.remedy for one in of_host(destination(**more), "destination", "b") if not one.met}


def test_a_host_that_has_everything() -> None:
    found = of_host(origin(), "origin")
    assert [(one.name, one.met, one.remedy) for one in found] == [(name, True, "") for name in NAMES]
    assert {one.role for one in found} == {"origin"}
    assert all(one.text for one in found)


@pytest.mark.parametrize(
    ("problem", "name", "remedy"),
    [
        ("no process may have more than 200 files open (ulimit -n)", "limits", "ulimit -H"),
        ("root has no CAP_NET_ADMIN here", "capabilities", "root of the whole host"),
        ("the packet filter cannot be used: no such file", "packet filter", "Repair"),
        ("the network interfaces cannot be listed: x", "network", "Repair"),
        ("there is no place in memory for images: x", "memory", "tmpfs on /dev/shm"),
        ("/dev/shm, where images go, is mounted read-only", "memory", "remount,rw"),
        ("/run is full", "journals", "Remove files"),
        ("something new", "journals", "Repair"),
    ],
)
def test_each_problem_is_about_one_requirement(problem: str, name: str, remedy: str) -> None:
    found = lacking(problems=[problem])
    assert list(found) == [name]
    assert remedy in found[name]


def test_criu() -> None:
    assert "migrate-criu" in lacking(criu_version="", criu_problem="CRIU is not installed")["CRIU"]
    assert "migrate-criu" in lacking(criu_version="3.17")["CRIU"]
    assert "migrate-criu" in lacking(criu_problem="pycriu is not installed for this Python")["CRIU"]


def test_without_root_the_rest_is_not_guessed() -> None:
    there = of_host(destination(root=False, criu_version=""), "destination", "b")
    assert (there[0].name, there[0].met, there[0].remedy) == ("root", False, "Log in as root: root@b.")
    assert [one.name for one in there[1:]] == ["limits", "memory", "network", "journals"]
    assert "sudo" in of_host(origin(root=False), "origin")[0].remedy


def test_two_hosts() -> None:
    one, other = origin(), destination(machine="aarch64")
    met = {found.name: found.met for found in of_both(one, other)}
    assert met == {"other host": True, "processor": False}
    assert [found.met for found in of_both(one, one)] == [False, True]
