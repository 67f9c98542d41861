"""`migrate doctor` between real hosts: what is there, what is not, and that nothing is touched."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from migrate.lab import Lab

pytestmark = pytest.mark.usefixtures("clean")

PROGRAMS = Path(sys.executable).parent


def doctor(lab: Lab, *words: str, env: str = "") -> tuple[int, dict[str, Any]]:
    """Its exit status and its object, on the origin."""
    command = [*(["env", env] if env else []), str(PROGRAMS / "migrate"), "doctor", "--json", *words]
    done = lab.hosts["origin"].exec(command, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def lacking(found: dict[str, Any]) -> dict[tuple[str, str], str]:
    """What is not met: role and name -> text and remedy."""
    wrong = (one for one in found["requirements"] if not one["met"])
    return {(one["role"], one["name"]): f"{one['text']} -> {one['remedy']}" for one in wrong}


def test_two_good_hosts(lab: Lab) -> None:
    for words in ([], ["destination"], ["--transport", "ssh", "destination"]):
        status, found = doctor(lab, "--agent", str(PROGRAMS / "migrate-agent"), *words)
        assert (status, lacking(found)) == (0, {})
        roles = {one["role"] for one in found["requirements"]}
        assert roles == ({"origin", "destination"} if words else {"origin"})


def test_an_agent_that_is_not_on_path(lab: Lab) -> None:
    """It is there, and what a shell without a terminal has for PATH does not lead to it."""
    status, found = doctor(lab, "--agent", "migrate-agent-of-another-name", "destination")
    assert status == 3
    wrong = lacking(found)
    assert set(wrong) == {("destination", "agent")}
    assert (
        "cannot be run" in wrong["destination", "agent"] and "--agent PATH" in wrong["destination", "agent"]
    )


def test_a_host_that_is_not_there(lab: Lab) -> None:
    status, found = doctor(lab, "nowhere.invalid")
    assert status == 3
    assert "does not resolve" in lacking(found)["destination", "agent"]


def test_itself(lab: Lab) -> None:
    status, found = doctor(lab, "--agent", str(PROGRAMS / "migrate-agent"), "origin")
    assert (status, set(lacking(found))) == (3, {("destination", "other host")})


def test_no_criu_here(lab: Lab) -> None:
    status, found = doctor(lab, env="MIGRATE_CRIU=/nonexistent/criu")
    assert (status, set(lacking(found))) == (3, {("origin", "CRIU")})
    assert "migrate-criu" in lacking(found)["origin", "CRIU"]
