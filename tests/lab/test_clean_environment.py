"""`pip install . ./plugin` and nothing else, on one host or both: refused, with the way to what is missing."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from clean_environment import build, install, required
from harness.hosts import spawn
from harness.migrate import run_migrate

from migrate.lab import Lab

pytestmark = pytest.mark.usefixtures("clean")

OURS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def programs() -> Iterator[Path]:
    """The directory of programs of such an environment, where the lab's hosts see it."""
    where = Path(tempfile.mkdtemp(prefix="clean-", dir=OURS.parent))
    for name in ("tree", "wheels"):
        (where / name).mkdir()
    wheels = build(where / "tree", where / "wheels")
    names = required("protobuf", "paramiko", "pyroute2", "rich")
    yield install(where, list(wheels.values()), names)
    shutil.rmtree(where)


@pytest.mark.parametrize("roles", [("origin", "destination"), ("origin",), ("destination",)])
def test_what_is_missing_is_no_bug(lab: Lab, programs: Path, roles: tuple[str, ...]) -> None:
    origin = lab.hosts["origin"]
    pid = spawn(origin, ["sleep", "1000"])
    here = (programs if "origin" in roles else OURS) / "migrate"
    there = (programs if "destination" in roles else OURS) / "migrate-agent"
    found = run_migrate(origin, "--check", "--agent", str(there), str(pid), "destination", program=str(here))
    print(found.report["reasons"])
    assert found.status == 3
    assert {(one["role"], one["code"]) for one in found.report["reasons"]} == {
        (role, "criu-broken") for role in roles
    }
    for reason in found.report["reasons"]:
        assert reason["text"] == "pycriu is not installed for this Python"
        assert "migrate-criu" in reason["remedy"]
    assert (programs / "migrate-criu").exists()
