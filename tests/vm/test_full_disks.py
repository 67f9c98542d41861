"""The memory that the machines' disks are kept in is full: who writes is told of errors, and none stands still."""

from __future__ import annotations

import os

import pytest
from harness.wait import eventually

from migrate.lab.vm import probe
from migrate.lab.vm.lab import VmLab

#: What is left for the disks in the test.
ROOM_MB = 16
#: More than that, which no zero is: they are not kept. It goes to the disk at once, or is told why not.
WRITE = ["dd", "if=/dev/urandom", "of=/root/much", "bs=1M", f"count={4 * ROOM_MB}", "oflag=direct"]


def answers(lab: VmLab) -> list[str]:
    """The machines that run commands."""
    return [name for name in ("origin", "peer") if lab.hosts[name].exec(["hostname"]).stdout == f"{name}\n"]


def test_who_writes_is_told_and_nobody_stands_still() -> None:
    if why := probe.problem():
        pytest.skip(f"machines cannot boot here: {why}")
    with VmLab(f"full-{os.getpid()}") as lab:
        segment, origin = lab.hosts["segment"], lab.hosts["origin"]
        size = segment.exec(["stat", "-f", "-c", "%b %f %S", "/run/vm"]).stdout.split()
        blocks, free, block_bytes = map(int, size)
        assert blocks * block_bytes == 4 << 30
        kept_kb = (blocks - free) * block_bytes // 1024 + ROOM_MB * 1024
        segment.exec(["mount", "-o", f"remount,size={kept_kb}k", "/run"])
        done = origin.exec(WRITE, check=False, timeout=120)
        assert done.returncode == 1
        assert "error" in done.stderr or "No space" in done.stderr, done.stderr
        said = origin.exec(["dmesg"]).stdout
        assert "I/O error, dev vd" in said or "critical space allocation error" in said, said
        assert answers(lab) == ["origin", "peer"]
        assert lab.off() == []
        segment.exec(["mount", "-o", "remount,size=4g", "/run"])
        lab.power_off("origin")
        lab.power_on("origin")
        origin.exec(["sh", "-c", "echo good > /root/again && sync /root/again"])
        eventually(lambda: answers(lab) == ["origin", "peer"], "both run")
