"""A machine that fills its disk is told so by its file system; it goes on, and no other one has less room."""

from __future__ import annotations

import os

import pytest

from migrate.lab.vm import disks, probe, root
from migrate.lab.vm.lab import VmLab
from migrate.lab.vm.machines import DISKS

#: Copies of what no zero is, since those are not kept, until there is no room.
WRITE = "i=0; while cp /root/piece /root/much-$i; do i=$((i + 1)); done; sync; echo $i"


def room_mb(lab: VmLab, host: str) -> int:
    """What the file system of *host* has left."""
    return int(lab.hosts[host].exec(["df", "-BM", "--output=avail", "/"]).stdout.split()[-1][:-1])


def test_a_full_disk_is_full_and_no_other_one() -> None:
    if why := probe.problem():
        pytest.skip(f"machines cannot boot here: {why}")
    with VmLab(f"full-{os.getpid()}") as lab:
        segment, origin = lab.hosts["segment"], lab.hosts["origin"]
        assert min(room_mb(lab, host) for host in ("origin", "destination", "gateway", "peer")) > 1000
        origin.exec(["sh", "-c", "head -c 16000000 /dev/urandom > /root/piece"])
        # What the machines' consoles and all else take is not of the disks' part.
        segment.exec(["sh", "-c", "mount -o remount,size=$(df -k --output=used /run | tail -n 1)k /run"])
        assert segment.exec(["sh", "-c", "cp /usr/bin/python3 /run/much"], check=False).returncode == 1
        done = origin.exec(["sh", "-c", WRITE], check=False, timeout=400)
        assert (done.returncode, int(done.stdout) > 50) == (0, True)
        assert "No space left on device" in done.stderr
        said = origin.exec(["dmesg", "--level=emerg,alert,crit,err,warn"]).stdout
        assert "EXT4-fs" not in said and "I/O error" not in said
        size = int(segment.exec(["stat", "-c", "%b", str(DISKS / "origin")]).stdout) * 512
        assert 1_000_000_000 < size <= disks.most(root.SIZE_BYTES)
        origin.exec(["sh", "-c", "rm /root/much-*; echo good > /root/again; sync; fstrim /"])
        assert room_mb(lab, "origin") > 1000
        assert int(segment.exec(["stat", "-c", "%b", str(DISKS / "origin")]).stdout) * 512 < size // 2
        assert room_mb(lab, "peer") > 1000
        segment.exec(["mount", "-o", "remount,size=4g", "/run"])
        lab.power_off("origin")
        lab.power_on("origin")
        assert origin.exec(["cat", "/root/again"]).stdout == "good\n"
