"""A service address goes from one host to another and back, and an undo from any point leaves both as they were."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from gap_hosts import SERVICE, GapHosts, bits
from netns import eventually, ip

from migrate.switch import Address, announce
from migrate.switch.address import AtOrigin
from migrate.testing import switches

ADDRESSES = [Address(SERVICE[version], bits(version), "eth0") for version in (4, 6)]


def state() -> object:
    """The addresses of this host, in the order in which they are chosen, its routes, and its packet filter."""
    shown = json.loads(ip("-json address show dev eth0"))[0]["addr_info"]
    # The kernel makes the route to an IPv6 address a moment later.
    eventually(lambda: all(f"local {one['local']} " in routes() for one in shown), "the addresses are used")
    tables = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout
    addresses = [one for one in shown if one["scope"] != "link"]
    return addresses, sorted(line for line in routes().splitlines() if "fe80:" not in line), tables


def routes() -> str:
    return "".join(ip(f"-{version} -d route show table all dev eth0") for version in (4, 6))


def bindable() -> bool:
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        with socket.socket(family) as sock:
            try:
                sock.bind((SERVICE[version], 0))
            except OSError:
                return False
    return True


def case(hosts: GapHosts, kind: str = "address") -> switches.Case:
    def on(role: str) -> AbstractContextManager[object]:
        announce.open_sender.cache_clear()  # by name of the device, which is the same on both hosts
        return {"origin": hosts.origin, "destination": hosts.destination}[role].entered()

    return switches.Case(kind, ADDRESSES, on, state, bindable)


@pytest.mark.parametrize("check", switches.CHECKS, ids=lambda check: check.__name__)
def test_it_is_one(gap_hosts: GapHosts, check: Callable[[switches.Case], None]) -> None:
    check(case(gap_hosts))


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example's package installed, and its program, which writes down what it is told: that file."""
    source, target, program = tmp_path / "source", tmp_path / "target", tmp_path / "switched"
    shutil.copytree(Path(__file__).parents[2] / "examples/switch_told", source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    words = [sys.executable, "-m", "pip", "install", "-q", *options, "--target", str(target), str(source)]
    subprocess.run(words, check=True, timeout=100)
    program.write_text(f"#!/bin/sh\necho $* >>{tmp_path}/told\n")
    program.chmod(0o755)
    monkeypatch.setenv("SWITCH_TOLD_PROGRAM", str(program))
    monkeypatch.syspath_prepend(str(target))
    yield tmp_path / "told"
    sys.modules.pop("switch_told", None)


def test_one_of_another_package_is_one(gap_hosts: GapHosts, told: Path) -> None:
    switches.check(case(gap_hosts, "told"))
    both = " ".join(SERVICE.values())
    assert told.read_text().splitlines()[:4] == [
        f"away {both}",
        f"here {both}",
        f"away {both}",
        f"here {both}",
    ]


def test_the_check_can_fail(gap_hosts: GapHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """An undo that does nothing is found."""
    monkeypatch.setattr(AtOrigin, "undo", lambda self: None)
    with pytest.raises(AssertionError, match="undone after 3 steps"):
        switches.it_is_undone_from_any_point_by_somebody_else(case(gap_hosts))
