"""A kernel that lets nobody read it on one of the two sides: what only a BPF program sees is done without.

By lockdown (confidentiality), as with Secure Boot at some distributions, no program may read the kernel's memory;
and without BTF nobody knows where to look. Neither can be had where the tests share this machine's kernel.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from conftest import PATIENT
from harness.migrate import move
from harness.workloads import assert_streams, drive_numbered, serve_numbered

from migrate.lab import Host
from migrate.lab.vm.lab import VmLab

pytestmark = pytest.mark.usefixtures("clean")

PORT = 7010
LOCK = """
mount -t securityfs none /sys/kernel/security 2>/dev/null
echo confidentiality > /sys/kernel/security/lockdown
"""
READS = "from tcpcp.kernel import fields; fields.prepare(); print(fields.ready())"


def reads_sockets(host: Host) -> bool:
    """Whether our program may read sockets there."""
    return host.exec([sys.executable, "-c", READS]).stdout.strip() == "True"


def streams_go_on(lab: VmLab, start: str) -> None:
    """Over a move from *start*, which has the service; no reset, every number once and in order."""
    pid = serve_numbered(lab.hosts[start], PORT)
    client = drive_numbered(lab, PORT, 2)
    before = client.ask()
    moved = move(lab, pid, *PATIENT, start=start)
    print(f"from {start}: frozen {moved.report['frozen_ms']} ms, notes {moved.report['notes']}")
    assert_streams(client, before)
    assert client.stop()["errors"] == []


@pytest.fixture
def locked_origin(lab: VmLab) -> Iterator[Host]:
    """Until its next boot."""
    host = lab.hosts["origin"]
    host.exec(["sh", "-c", LOCK])
    yield host
    lab.reboot("origin")


@pytest.fixture
def destination_without_btf(lab: VmLab) -> Iterator[Host]:
    """Something else is mounted where it is."""
    host, file = lab.hosts["destination"], "/sys/kernel/btf/vmlinux"
    host.exec(["mount", "--bind", "/dev/null", file])
    yield host
    host.exec(["umount", file])


def test_an_origin_that_is_locked_down(lab: VmLab, locked_origin: Host) -> None:
    assert not reads_sockets(locked_origin)
    assert reads_sockets(lab.hosts["destination"])
    streams_go_on(lab, "origin")


@pytest.mark.long
def test_a_destination_without_btf(lab: VmLab, destination_without_btf: Host) -> None:
    assert not reads_sockets(destination_without_btf)
    assert reads_sockets(lab.hosts["origin"])
    streams_go_on(lab, "origin")
