"""Ways to switch traffic for which the addresses are on both hosts: each keeps what a switch promises."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from gap_hosts import SERVICE, GapHosts
from netns import eventually, ip
from test_switches import ADDRESSES, bindable

from migrate import limits, switch
from migrate.errors import SwitchError
from migrate.switch import Address
from migrate.testing import switches

ID = switches.ID
#: It keeps what it was told, and where the network leads in its opinion, in the directory that is its argument.
PROGRAM = """#!/usr/bin/python3
import json, os, pathlib, sys
told, here = json.load(sys.stdin), pathlib.Path(sys.argv[1])
stage, role = told["stage"], told["role"]
with (here / "told").open("a") as log:
    log.write(json.dumps(told) + "\\n")
state = here / f"switched-{role}"
if (here / "pid").exists():
    if os.fork():
        (here / "pid").write_text(str(os.getpid()))
    import time; time.sleep(600)
if (here / stage).exists():
    print("the API says:", (here / stage).read_text())
    sys.exit(3)
if stage == "switch":
    state.write_text("")
elif stage == "undo":
    state.unlink(missing_ok=True)
elif stage == "verify" and not state.exists():
    sys.exit("not yet")
"""


@pytest.fixture
def hosts(gap_hosts: GapHosts) -> GapHosts:
    """Both have the service's addresses."""
    with gap_hosts.destination.entered():
        for address, bits in zip(SERVICE.values(), (32, 128), strict=True):
            ip(f"addr add {address}/{bits} dev lo")
    return gap_hosts


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "network"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return path


def state() -> object:
    """Addresses, routes, packet filter."""
    shown = json.loads(ip("-json address show"))
    tables = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout
    routes = "".join(ip(f"-{version} -d route show table all") for version in (4, 6))
    found = [one for link in shown for one in link["addr_info"] if one["scope"] != "link"]
    return found, sorted(line for line in routes.splitlines() if "fe80:" not in line), tables


def case(hosts: GapHosts, kind: str, tell: tuple[str, ...] = switches.ROLES) -> switches.Case:
    def on(role: str) -> AbstractContextManager[object]:
        return {"origin": hosts.origin, "destination": hosts.destination}[role].entered()

    return switches.Case(kind, ADDRESSES, on, state, bindable, tell)


def told(program: Path) -> list[tuple[str, str]]:
    lines = (program.parent / "told").read_text().splitlines()
    return [(one["role"], one["stage"]) for one in map(json.loads, lines)]


def make(program: Path, role: str = "destination") -> switch.Switch:
    return switch.make(f"exec:{program} {program.parent}", role, ID, ADDRESSES)


@pytest.mark.parametrize("check", switches.CHECKS, ids=lambda check: check.__name__)
def test_none_is_one(hosts: GapHosts, check: Callable[[switches.Case], None]) -> None:
    check(case(hosts, "none", ()))


@pytest.mark.parametrize("check", switches.CHECKS, ids=lambda check: check.__name__)
def test_a_command_is_one(hosts: GapHosts, program: Path, check: Callable[[switches.Case], None]) -> None:
    check(case(hosts, f"exec:{program} {program.parent}"))


def test_what_a_command_is_told(hosts: GapHosts, program: Path) -> None:
    with hosts.destination.entered():
        made = make(program)
        made.choose()
        made.prepare()
    (line,) = (program.parent / "told").read_text().splitlines()
    addresses = [{"ip": one.ip, "prefix_length": one.prefix_length, "device": "eth0"} for one in ADDRESSES]
    assert json.loads(line) == {
        "stage": "prepare",
        "role": "destination",
        "migration": ID,
        "addresses": addresses,
    }


@pytest.mark.parametrize("stage", ["prepare", "switch", "verify", "undo"])
def test_a_failure_says_what_the_command_has_said(hosts: GapHosts, program: Path, stage: str) -> None:
    (program.parent / stage).write_text("no more addresses")
    with (
        hosts.destination.entered(),
        pytest.raises(SwitchError, match=f"status 3 at the stage {stage}") as told,
    ):
        getattr(make(program), stage)()
    assert told.value.problem.details[-1] == "the API says: no more addresses"
    assert "no more addresses" in str(told.value)


def test_a_command_that_takes_too_long_is_killed_with_its_children(
    hosts: GapHosts, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "COMMAND_S", 4)
    (program.parent / "pid").write_text("")
    with hosts.destination.entered(), pytest.raises(SwitchError, match="did not end within 4 s"):
        make(program).switch()
    group = int((program.parent / "pid").read_text())
    eventually(lambda: _gone(group), "they are gone, and reaped by whoever got the child")


def test_an_undo_ends_the_command_of_who_was_killed(hosts: GapHosts, program: Path) -> None:
    """It would switch after the undo."""
    (program.parent / "pid").write_text("")
    caller = os.fork()
    if caller == 0:
        with hosts.destination.entered():
            make(program).switch()
        os._exit(0)
    eventually(lambda: (program.parent / "pid").read_text() != "", "it runs")
    os.kill(caller, 9)
    os.waitpid(caller, 0)
    group = int((program.parent / "pid").read_text())
    (program.parent / "pid").unlink()
    with hosts.destination.entered():
        switch.from_details(make(program).details()).undo()
    eventually(lambda: _gone(group), "the command is gone")
    assert told(program)[-1] == ("destination", "undo")


def _gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture(params=["none", "exec"])
def kind(request: pytest.FixtureRequest, program: Path) -> Iterator[str]:
    yield "none" if request.param == "none" else f"exec:{program} {program.parent}"


def test_an_address_that_is_not_there_is_refused(gap_hosts: GapHosts, kind: str) -> None:
    with gap_hosts.destination.entered():
        with pytest.raises(SwitchError, match="is not on this host") as told:
            switch.make(kind, "destination", ID, ADDRESSES).choose()
        assert "ip addr add" in told.value.problem.hint


def test_an_address_that_was_removed_since_the_check_is_noticed(hosts: GapHosts, kind: str) -> None:
    with hosts.destination.entered():
        made = switch.make(kind, "destination", ID, ADDRESSES)
        made.choose()
        ip(f"addr del {SERVICE[4]}/32 dev lo")
        with pytest.raises(SwitchError, match=f"{SERVICE[4]} is not on this host"):
            made.require_free()


@pytest.mark.parametrize(
    ("mode", "owner", "words"),
    [
        (0o755, 1000, "others than root may change"),
        (0o775, 0, "others than root"),
        (0o644, 0, "not an executable"),
    ],
)
def test_a_command_that_is_not_roots_is_not_run(
    hosts: GapHosts, program: Path, mode: int, owner: int, words: str
) -> None:
    program.chmod(mode)
    os.chown(program, owner, owner)
    with hosts.destination.entered():
        for step in ("choose", "prepare"):
            with pytest.raises(SwitchError, match=words):
                getattr(make(program), step)()
    assert not (program.parent / "told").exists()


def test_a_command_that_is_not_there(hosts: GapHosts, tmp_path: Path) -> None:
    with hosts.destination.entered(), pytest.raises(SwitchError, match="cannot be run: No such file") as told:
        switch.make(f"exec:{tmp_path}/network", "destination", ID, ADDRESSES).choose()
    assert "both hosts" in told.value.problem.hint


@pytest.mark.parametrize("kind", ["exec", "exec:", "exec:network", "exec:/a 'b", "none:x", "address:x"])
def test_words_that_make_no_sense(kind: str) -> None:
    with pytest.raises(SwitchError, match="followed by|makes no sense"):
        switch.make(kind, "origin", ID, [Address("10.0.0.1", 24)])


def test_no_shell_sees_the_words(hosts: GapHosts, program: Path, tmp_path: Path) -> None:
    with hosts.destination.entered():
        switch.make(
            f"exec:{program} {tmp_path} $(touch${{IFS}}{tmp_path}/x) ; >y", "destination", ID, ADDRESSES
        ).prepare()
    assert told(program) == [("destination", "prepare")]
    assert not (tmp_path / "x").exists()
