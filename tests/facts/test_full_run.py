"""CRIU where /run is full: it leaves nothing of its own there, and what is another one's stays."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: In a mount namespace with a small /run of its own.
BEGIN = """
import os, subprocess, sys
from pathlib import Path
from migrate.criu import probe
from migrate.criu.begun_note import PATH, BegunNote
from migrate.criu.worker import program
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", "/run"], check=True)

def fill():
    with open("/run/fill", "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
"""


def said(script: str) -> str:
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", BEGIN + script]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def test_criu_leaves_what_it_could_not_write() -> None:
    """The fact that this rests on: a begun note, which keeps each CRIU after it from writing one."""
    script = "fill(); subprocess.run([program(), 'check'], capture_output=True); print(os.listdir('/run'))"
    assert "criu.kdat.tmp" in said(script)


def test_ours_leaves_nothing() -> None:
    """A dump and a restore; the next ones, with room again, have what they know of the kernel kept."""
    script = """
fill()
probe.run(program())
print(os.listdir("/run"))
os.unlink("/run/fill")
probe.run(program())
print(os.listdir("/run"))
"""
    assert said(script).splitlines() == ["['fill']", "['criu.kdat']"]


@pytest.mark.parametrize("full", ["/tmp", "/dev/shm"])
def test_criu_is_tried_where_there_is_room(full: str) -> None:
    """A full /tmp, or root file system, says nothing of whether CRIU works with this kernel; no memory, either."""
    script = f"""
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", "{full}"], check=True)
probe.run(program())
print(os.listdir("{full}"))
"""
    assert said(script) == "[]"


@pytest.mark.parametrize("written, stays", [("before", True), ("open", True), ("since", False)])
def test_what_is_another_ones_stays(written: str, stays: bool) -> None:
    script = f"""
PATH.touch() if {written == "before"} else None
begun = BegunNote()
held = open(PATH, "wb") if {written != "before"} else None
held.close() if {written == "since"} else None
begun.remove()
print(PATH.exists())
"""
    assert said(script) == str(stays)
