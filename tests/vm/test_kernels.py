"""What only kernels of their own show: 6.1 on one side and 6.12 on the other, clocks and processors that differ.

The redis client is that of the lab of namespaces.
"""

from __future__ import annotations

import time

import pytest
from conftest import AHEAD_S, HOUR_S, NEW, OLD, PATIENT, REDIS
from harness.hosts import MOVERS, spawn
from harness.migrate import move, run_migrate
from harness.wait import eventually
from harness.workloads import Client

from migrate.lab import LabError
from migrate.lab.vm import kernels
from migrate.lab.vm.lab import VmLab

#: Of the redis client, which would else take the machine's one processor from what moves the server.
PAUSE_S = 0.05
#: How long that waits for an answer: longer than the server may be frozen here, see PATIENT.
WAITS = ("env", "REDIS_ANSWER_S=180")

pytestmark = pytest.mark.usefixtures("clean")


def test_the_machines_are_what_was_asked_for(lab: VmLab) -> None:
    for name, version in (("origin", OLD), ("destination", NEW)):
        assert lab.hosts[name].exec(["uname", "-r"]).stdout.startswith(version + ".")
    ahead = int(lab.hosts["destination"].exec(["date", "+%s"]).stdout) - time.time()
    assert abs(ahead - AHEAD_S) < HOUR_S


def test_redis_from_an_old_kernel_to_a_new_one_and_back(lab: VmLab) -> None:
    """Timestamps in milliseconds here and microseconds there, other vDSOs, and clocks that differ by hours."""
    pid = spawn(lab.hosts["origin"], REDIS)
    peer = lab.hosts["peer"]
    cli = ["redis-cli", "-h", lab.service.ipv4]
    eventually(lambda: peer.exec([*cli, "ping"], check=False).stdout == "PONG\n", "redis answers")
    where = lab.service.ipv4
    client = Client.start(lab.hosts["peer"], "redis_counter.py", where, PAUSE_S, before=WAITS)
    for start in MOVERS:
        before = client.ask()
        moved = move(lab, pid, *PATIENT, start=start)
        pid = moved.report["destination_pid"]
        after = client.ask()
        print(f"from {start}: frozen {moved.report['frozen_ms']} ms,", after)
        assert (after["error"], after["wrong_answers"], after["reconnected"]) == ("", 0, False)
        goal = before["incremented"] + 20
        eventually(lambda goal=goal: client.ask()["incremented"] > goal, "the client goes on")
    last = client.stop()
    assert peer.exec([*cli, "get", "counter"]).stdout == f"{last['incremented']}\n"


def test_a_processor_that_lacks_features_is_refused_with_their_list(lab: VmLab) -> None:
    """Before anything is frozen: a program may have chosen code by what the processor could do at its start."""
    pid = spawn(lab.hosts["origin"], REDIS)
    lab.reboot("destination", cpu="Nehalem")
    try:
        checked = run_migrate(lab.hosts["origin"], "--check", "--no-address", str(pid), "destination")
    finally:
        lab.reboot("destination", cpu="")
    reasons = {reason["code"]: reason for reason in checked.report["reasons"]}
    print(reasons)
    assert checked.status == 3
    assert any("avx2" in reason["text"] for reason in reasons.values())


@pytest.mark.usefixtures("lab")
def test_a_package_that_depends_on_a_kernel_means_the_newest() -> None:
    assert kernels.kernel("linux-image-cloud-amd64").release == kernels.kernel(NEW).release
    with pytest.raises(LabError, match="linux-image-amd64-dbg has no kernel in it"):
        kernels.kernel("linux-image-amd64-dbg")
