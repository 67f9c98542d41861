"""File systems of the destination on which nothing may be executed, or no device opened."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path
from typing import Any

import inventories as two
import pytest

from migrate.errors import Reason
from migrate.inventory import room
from migrate.pb.session_pb2 import File

PROGRAM = {"use": File.EXECUTABLE, "regular": True, "executed": True, "build_id": b"same"}
DEVICE = {"use": File.OPEN, "mode": stat.S_IFCHR | 0o666}
GHOST = {"use": File.DELETED, "executed": True}


def check(here: dict[str, Any], **there: Any) -> list[Reason]:
    mine = File(path="/srv/it", **here)
    its = File(path="/srv/it", **({name: here[name] for name in here if name != "executed"} | there))
    return two.reasons(
        two.process(files=[mine]), None, two.destination(files=[its]), copy_files=not its.exists
    )


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("here", [PROGRAM, PROGRAM | {"use": File.MAPPED}], ids=["program", "library"])
def test_what_is_executed(here: dict[str, Any], exists: bool) -> None:
    """Also what is copied there first."""
    reason = two.only(check(here, exists=exists, no_exec="/srv"))
    assert (reason.code, reason.role) == ("noexec", "destination")
    assert reason.remedy.endswith(": mount -o remount,exec /srv")
    assert check(here, exists=True, no_devices="/srv") == []
    assert check(here | {"executed": False}, exists=True, no_exec="/srv") == []


def test_what_was_deleted() -> None:
    assert two.only(check(GHOST, exists=False, no_exec="/srv")).code == "noexec"


def test_a_device() -> None:
    reason = two.only(check(DEVICE, exists=True, no_devices="/srv"))
    assert (reason.code, reason.role) == ("nodev", "destination")
    assert reason.remedy.endswith(": mount -o remount,dev /srv")
    assert check(DEVICE, exists=True, no_exec="/srv") == []


def test_how_it_is_mounted(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec,nodev", "none", str(tmp_path)], check=True)
    try:
        found = [File(path=f"{tmp_path}/no/such"), File(path=str(tmp_path)), File(path="/")]
        for one in found:
            room.add(one)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert [(one.no_exec, one.no_devices) for one in found] == [(str(tmp_path), str(tmp_path))] * 2 + [
        ("", "")
    ]
    assert found[0].read_only == ""
