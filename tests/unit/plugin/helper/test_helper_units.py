"""The helper's systemd units say what the code and the tests with a running helper rely on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tcpcp.helper import DEFAULT_PATH
from tcpcp.helper.server import MAX_WORKERS

TESTS = Path(__file__).resolve().parents[3]
UNITS = TESTS.parent / "plugin" / "systemd"
RUNNING = TESTS / "facts" / "helpers.py"


def values(name: str) -> dict[str, str]:
    lines = (UNITS / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def test_capabilities_are_those_that_the_tests_run_with() -> None:
    service = values("tcpcp-helper.service")
    assert service["AmbientCapabilities"] == service["CapabilityBoundingSet"]
    ours = [f"+{name.removeprefix('CAP_').lower()}" for name in service["CapabilityBoundingSet"].split()]
    assert f'"-all,{",".join(ours)}"' in RUNNING.read_text()


def test_the_socket_is_the_one_that_clients_look_for() -> None:
    found = values("tcpcp-helper.socket")
    assert found["ListenSequentialPacket"] == DEFAULT_PATH
    assert found["SocketMode"] == "0660"


def test_every_worker_has_its_room() -> None:
    assert int(values("tcpcp-helper.service")["TasksMax"]) > MAX_WORKERS


def test_systemd_understands_them(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/usr/bin/tcpcp-helper", "/bin/true")  # it must be there
        (tmp_path / unit.name).write_text(text)
    names = [str(tmp_path / unit.name) for unit in UNITS.iterdir()]
    done = subprocess.run(["systemd-analyze", "verify", *names], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
