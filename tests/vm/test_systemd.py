"""A program of another user, under systemd, with a capability and limits of its cgroup, is moved.

Root has all its capabilities in a machine, CAP_SYS_RESOURCE too, which the lab of namespaces may lack.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness.migrate import run_migrate
from harness.wait import eventually
from harness.workloads import NUMBERED as BEFORE
from harness.workloads import NUMBERED_S, WORKLOADS, Client, assert_streams

from migrate.lab.vm.lab import VmLab

PORT = 81
NUMBERED = str(WORKLOADS / "numbered.py")
UNIT = f"""
[Service]
User=www-data
ExecStart=/usr/bin/python3 {NUMBERED} serve {PORT}
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
NoNewPrivileges=yes
Environment=NUMBERED_INTERVAL_S={NUMBERED_S:g}
LimitNOFILE=5000
MemoryMax=300M
TasksMax=50
StandardOutput=null
StandardError=null
"""
#: Of /proc/PID/status: what must be as before.
KEPT = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")


@pytest.fixture(scope="module")
def under_systemd(lab: VmLab) -> Iterator[VmLab]:
    """Both machines have booted systemd."""
    for name in ("origin", "destination"):
        lab.reboot(name, systemd=True)
    yield lab
    for name in ("origin", "destination"):
        lab.reboot(name)


def status_of(lab: VmLab, host: str, pid: int) -> dict[str, str]:
    lines = lab.hosts[host].exec(["cat", f"/proc/{pid}/status"]).stdout.splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {name: found[name].strip() for name in KEPT}


def test_a_service_of_another_user(under_systemd: VmLab) -> None:
    lab = under_systemd
    origin, destination = lab.hosts["origin"], lab.hosts["destination"]
    origin.exec(["sh", "-c", "cat > /run/systemd/system/numbered.service"], input=UNIT)
    origin.exec(["systemctl", "daemon-reload"])
    origin.exec(["systemctl", "start", "numbered"])
    pid = int(origin.exec(["systemctl", "show", "-P", "MainPID", "numbered"]).stdout)
    eventually(lambda: origin.exec(["ss", "-Hltn", f"sport = :{PORT}"]).stdout.count("\n") == 2, "it listens")
    before = status_of(lab, "origin", pid)
    assert before["CapEff"] == "0000000000000400"
    client = Client.start(lab.hosts["peer"], "numbered.py", "drive", PORT, lab.service.ipv4, 2, before=BEFORE)
    moved = run_migrate(origin, "--max-gap", "120", "--timeout", "240", str(pid), "destination")
    assert moved.status == 0, moved.report
    print(moved.report["notes"])
    there = moved.report["destination_pid"]
    assert status_of(lab, "destination", there) == before
    limits = destination.exec(["grep", "open files", f"/proc/{there}/limits"]).stdout.split()
    assert limits[3:5] == ["5000", "5000"]
    assert_streams(client, client.ask())
    assert client.stop()["errors"] == []
    state = ["systemctl", "show", "-P", "ActiveState", "numbered"]
    eventually(
        lambda: origin.exec(state).stdout.strip() in ("inactive", "failed"), "systemd has seen its end"
    )


def test_whoever_serves_commands_may_be_killed(under_systemd: VmLab) -> None:
    """systemd starts another one, with the socket; the limit of its starts is none."""
    host = under_systemd.hosts["destination"]
    boot = ["cat", "/proc/sys/kernel/random/boot_id"]
    before = host.exec(boot).stdout
    for _ in range(6):
        assert host.exec(["killall", "-9", "python3"], check=False).returncode == 125
        assert host.exec(boot).stdout == before
