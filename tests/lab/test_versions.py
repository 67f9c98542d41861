"""A server moves although one of the hosts has the version before: its streams go on, and nothing is left.

The version before is the one of the repository's history in which protocol 2 was the newest, run from its sources;
it says a number of its own.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from harness.left import assert_service_on
from harness.migrate import Held, run_migrate
from harness.workloads import Client, assert_streams, drive_numbered, serve_numbered

from migrate.lab import Host, Lab

ROOT = Path(__file__).resolve().parents[2]
#: The last commit of protocol 2, that of `tests/unit/golden/session-2.txt`.
BEFORE = "d05b337e58748cb456cecd3aabf9342641614ab9"
EACH = 5
PORT = 7000
VERSION = "0.0.9"

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def sources() -> bytes:
    """Those of the version before, as a tar file."""
    command = ["git", "-C", str(ROOT), "archive", BEFORE, "migrate", "plugin/tcpcp"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no history here: {done.stderr.decode()}")
    return done.stdout


def installed(host: Host, sources: bytes, module: str) -> str:
    """A program on *host* that runs *module* of these sources; its path there."""
    with tarfile.open(fileobj=io.BytesIO(sources)) as archive:
        archive.extractall(host.root / "opt/before", filter="data")
    for directory in ("migrate", "plugin/tcpcp"):
        said = host.root / "opt/before" / directory / "version.py"
        said.write_text(f'VERSION = __version__ = "{VERSION}"\n')
    program = host.root / "opt/before/run"
    path = "/opt/before/plugin:/opt/before"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={path} exec {sys.executable} -m {module} "$@"\n')
    program.chmod(0o755)
    return "/opt/before/run"


def under_way(lab: Lab, sources: bytes, old: str) -> tuple[int, Client, str, dict[str, Any]]:
    """A server with streams: its PID, the client, the program of the version before on the host *old*, what the
    client has seen."""
    pid = serve_numbered(lab.hosts["origin"], PORT)
    client = drive_numbered(lab, PORT, EACH)
    module = {"origin": "migrate.cli", "destination": "migrate.destination.agent"}[old]
    return pid, client, installed(lab.hosts[old], sources, module), client.ask()


@pytest.mark.parametrize("old", ["origin", "destination"])
def test_one_side_is_of_the_version_before(lab: Lab, sources: bytes, old: str) -> None:
    pid, client, program, before = under_way(lab, sources, old)
    if old == "origin":
        moved = run_migrate(lab.hosts["origin"], str(pid), "destination", program=program)
    else:
        moved = run_migrate(lab.hosts["origin"], "--agent", program, str(pid), "destination")
    assert (moved.status, moved.report["outcome"]) == (0, "MOVED"), moved
    assert moved.report["connections"] == 2 * EACH
    assert_streams(client, before)
    assert_service_on(lab, "destination")
    client.close()


@pytest.mark.parametrize("old", ["origin", "destination"])
def test_it_goes_on_at_the_origin_when_that_is_called_off(lab: Lab, sources: bytes, old: str) -> None:
    """In the gap, with connections and packets under way."""
    pid, client, program, before = under_way(lab, sources, old)
    words = [program] if old == "origin" else ["migrate", "--agent", program]
    held = Held(lab.hosts["origin"], "RESTORED", pid, "destination", program=words)
    held.terminate()
    assert held.end().report["outcome"] == "ROLLED_BACK"
    assert_streams(client, before)
    assert_service_on(lab, "origin")
    client.close()
