"""Names of programs and files are bytes that anybody may choose; those who read /proc are not misled by them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate import checks, errors, inventory, place
from migrate.inventory import proc
from migrate.lab import state
from migrate.lab.host import mount_points_in
from migrate.memory import sources
from migrate.pb.session_pb2 import HostInventory
from migrate.processes import identity, mounts
from migrate.request import Along

#: What Python takes for the end of a line, and the kernel for a part of a name.
ENDS = ["\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028"]

MAP = "7f0000000000-7f0000001000 {} 00000000 fe:00 {}                     {}\n"
PROGRAM = (
    "import ctypes, os, sys, time\n"
    "ctypes.CDLL(None).prctl(15, b'na\\xff) R 1')\n"
    "opened = os.open(os.fsencode(sys.argv[1]), os.O_RDWR | os.O_CREAT)\n"
    "print('ready', flush=True)\n"
    "time.sleep(60)\n"
)


@pytest.fixture
def strange(tmp_path: Path) -> Iterator[int]:
    """A process whose name, and that of a file it has open, are not UTF-8."""
    name = os.fsencode(tmp_path) + b"/a\xff\nb"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, os.fsdecode(name)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield process.pid
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_process_with_such_names(strange: int) -> None:
    assert identity.identity(strange)[0] == strange
    assert identity.innermost(strange) == strange
    assert identity.alive(identity.identity(strange))
    found = inventory.process(strange)
    assert [task.comm for task in found.tasks] == ["na\ufffd) R 1"]
    assert [one.what for one in found.obstacles if one.code == "file-name"][0].endswith("/a\ufffd\nb")
    reasons = checks.refusals(found, HostInventory(), HostInventory(), Along())
    assert any(one.code == "file-name" and "not UTF-8" in one.text for one in reasons)


@pytest.mark.parametrize("end", ENDS)
def test_mappings(end: str) -> None:
    name = f"/tmp/x{end}1-2 r-xp 3 4:5 word /etc/shadow"
    content = MAP.format("r-xp", 7, name) + MAP.format("rw-p", 0, "").rstrip(" \n") + " \n"
    assert proc.parse_maps(content) == [proc.Mapping("7f0000000000-7f0000001000", "r-xp", 7, name)]
    found = sources.mappings_in(content.encode())
    assert [(one.inode, one.name) for one in found] == [(7, name), (0, "")]


@pytest.mark.parametrize("end", ENDS)
def test_fields(end: str) -> None:
    content = f"Name:\tx{end}NSpid:\t1\nUid:\t5\t5\nNSpid:\t70\t7\n"
    assert proc.parse_fields(content)["Uid"] == "5\t5"
    assert identity.innermost_in(content.encode()) == 7


@pytest.mark.parametrize("end", ENDS)
def test_mounts(end: str) -> None:
    lines = f"22 1 0:5 / /a{end}b rw - tmpfs none rw\n23 1 0:5 / /b rw - x none rw\n"
    assert [(one.number, one.place) for one in mounts.parse(lines)] == [(22, f"/a{end}b"), (23, "/b")]
    table = f"x /home/a{end}tmpfs{end}tmpfs fuse rw 0 0\ntmpfs /run tmpfs rw 0 0\nx /b{end}y\n"
    assert place.tmpfs_in(table.encode()) == {"/run"}


@pytest.mark.parametrize("end", [b"\r", b"\x0b", b"\x0c", b"\t"])
def test_mount_points_of_the_lab(end: bytes) -> None:
    content = b"22 1 0:5 / /a\\040" + end + b"b rw - tmpfs none rw\n23 1 0:5 / /c\\777 rw - x none rw\n"
    assert mount_points_in(content) == [Path(os.fsdecode(b"/a " + end + b"b")), Path("/c\\777")]


def test_numbers_without_end_are_no_mapping() -> None:
    assert sources.mappings_in(MAP.format("r-xp", "7" * 5000, "/x").encode()) == []


@pytest.mark.parametrize(
    "text", ["[" * 100000, '{"boot": "B", "inits": {"a": [Infinity, 1]}}', "7", "\xff", "{}"]
)
def test_the_state_of_a_lab_that_makes_no_sense(text: str, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(text.replace("B", state.boot_id()), encoding="latin-1")
    assert state.load(tmp_path) == {}


@pytest.mark.parametrize("content", ["", "1 (x", "1 (x) S", "1 (x) S a b c d" + " 0" * 40])
def test_another_text_is_an_error_of_ours(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "text", lambda pid, name: content)
    with pytest.raises(errors.KernelError, match="/proc/1/stat"):
        proc.stat(1)
