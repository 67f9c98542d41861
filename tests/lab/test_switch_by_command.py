"""``--switch exec:/COMMAND``: a command of the user's switches the network, here by a route of the gateway's.

The judges are the gateway's ``ip route get``, the clients' end of the streams, and a capture of the peer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from figure_3 import OnBoth, by_the_segment, figure_3, kill_when_it_is_switched
from harness.captures import Capture
from harness.checkered import checkered
from harness.migrate import run_migrate
from kills_outcomes import assert_goes_on_at_origin, assert_moved

from migrate.lab import Host, Lab

#: On each host: it brings the addresses to this host, and gives them back to the other one.
COMMAND = """#!/usr/bin/python3
import json, os, pathlib, subprocess, sys, time
told = json.load(sys.stdin)
here = os.uname().nodename
other = {"origin": "destination", "destination": "origin"}[here]
hosts = {"origin": ("10.77.1.1", "fd77:1::1"), "destination": ("10.77.1.2", "fd77:1::2")}
stage = told["role"] + "-" + told["stage"]
with open("/tmp/switched", "a") as log:
    print(stage, file=log)
if pathlib.Path("/tmp/slow-" + stage).exists():
    time.sleep(600)
if pathlib.Path("/tmp/fail-" + stage).exists():
    sys.exit(f"the router says no to {stage}")
def on_the_gateway(words):
    ssh = ["ssh", "-oBatchMode=yes", "gateway", words]
    return subprocess.run(ssh, check=True, capture_output=True, text=True).stdout
def lead(host):
    commands = []
    for one in told["addresses"]:
        six = ":" in one["ip"]
        commands.append(f"ip route replace {one['ip']}/{128 if six else 32} via {hosts[host][six]}")
    on_the_gateway("; ".join(commands))
if stage == "destination-switch":
    lead(here)
elif stage == "destination-undo":
    lead(other)
elif stage == "origin-undo":
    lead(here)
elif stage == "destination-verify":
    for one in told["addresses"]:
        if hosts[here][":" in one["ip"]] + " " not in on_the_gateway("ip route get " + one["ip"]):
            sys.exit("the gateway leads elsewhere")
"""
EXEC = ("--switch", "exec:/etc/migrate/network")
#: A filter of tcpdump's.
RESETS = "(ip and tcp[tcpflags] & tcp-rst != 0) or (ip6 and ip6[6] = 6 and ip6[53] & 4 != 0)"
SWITCHING = ["destination-prepare", "origin-switch", "destination-switch", "destination-verify"]


@pytest.fixture(scope="module")
def figure(lab: Lab) -> Iterator[OnBoth]:
    put = "mkdir -p /etc/migrate; cat >/etc/migrate/network; chmod 755 /etc/migrate/network"
    movers = [lab.hosts[name] for name in ("origin", "destination")]
    with figure_3(lab):
        for host in movers:
            host.exec(["sh", "-c", put], input=COMMAND)
        bench = OnBoth(lab)
        yield bench
        bench.close()
        for host in movers:
            host.exec(["rm", "-rf", "/etc/migrate"])


@pytest.fixture
def bench(figure: OnBoth) -> Iterator[OnBoth]:
    yield figure.ready()
    for host in (figure.origin, figure.destination):
        host.exec(["sh", "-c", "rm -f /tmp/switched /tmp/fail-* /tmp/slow-*"])


def told(*hosts: Host) -> list[str]:
    """The stages that were called there."""
    script = ["sh", "-c", "cat /tmp/switched 2>/dev/null; true"]
    return [line for host in hosts for line in host.exec(script).stdout.splitlines()]


@contextlib.contextmanager
def no_reset(bench: OnBoth, device: str = "eth0") -> Iterator[None]:
    """The peer gets, and sends, none meanwhile, says tcpdump."""
    with Capture(bench.peer, device, RESETS) as capture:
        yield
    assert capture.packets() == []


@pytest.mark.parametrize("where", checkered(["behind the gateway", "on the segment"]))
def test_there_and_back(bench: OnBoth, where: str) -> None:
    """IPv4 and IPv6: no reset, no lost number."""
    if where == "on the segment":
        with by_the_segment(bench.lab):
            bench.stop()
            bench.start()
            _there_and_back(bench, "eth1")
            bench.stop()
    else:
        _there_and_back(bench, "eth0")


def _there_and_back(bench: OnBoth, device: str) -> None:
    with no_reset(bench, device):
        status, report = bench.migrate(*EXEC, str(bench.pid), "destination")
        assert (status, report["outcome"]) == (0, "MOVED"), report
        # In the end the destination looks once more: what the report says was seen then.
        wanted = [*SWITCHING, "origin-verify", "destination-verify"]
        assert sorted(told(bench.origin, bench.destination)) == sorted(wanted)
        assert_moved(bench)
        assert bench.leads_to() == {"destination"}
        status, report = bench.migrate(*EXEC, str(bench.pid), "origin", host="destination")
        assert (status, report["outcome"]) == (0, "MOVED"), report
        assert_goes_on_at_origin(bench)
        assert bench.leads_to() == {"origin"}


def break_it(bench: OnBoth, how: str, stage: str) -> None:
    for host in (bench.origin, bench.destination):
        host.exec(["touch", f"/tmp/{how}-{stage}"])


@pytest.mark.parametrize("stage", checkered([*SWITCHING, "origin-verify"]))
def test_a_stage_that_fails(bench: OnBoth, stage: str) -> None:
    """Rolled back; what the command has said is told, and the gateway leads to the origin."""
    break_it(bench, "fail", stage)
    with no_reset(bench):
        status, report = bench.migrate(*EXEC, str(bench.pid), "destination")
        assert (status, report["outcome"]) == (4, "ROLLED_BACK"), report
        error = report["error"]
        assert error["kind"] == "SwitchError" and f"says no to {stage}" in error["message"]
        assert error["role"] == stage.partition("-")[0] and error["hint"]
        assert_goes_on_at_origin(bench)
        assert bench.leads_to() == {"origin"}
    assert "destination-undo" in told(bench.destination)


@pytest.mark.parametrize("stage", ["origin-switch", "destination-switch"])
def test_a_stage_that_takes_too_long(bench: OnBoth, stage: str) -> None:
    """It counts against --max-gap, and the command is killed."""
    break_it(bench, "slow", stage)
    with no_reset(bench):
        status, report = bench.migrate(*EXEC, "--max-gap", "3", str(bench.pid), "destination")
        assert (status, report["outcome"]) == (4, "ROLLED_BACK"), report
        assert report["error"]["kind"] in ("SwitchError", "TookTooLong")
        assert_goes_on_at_origin(bench, within_s=15)
        assert bench.leads_to() == {"origin"}
    running = [
        host.exec(["pgrep", "-f", "/etc/migrate/network"], check=False).stdout for host in movers(bench)
    ]
    assert running == ["", ""]


@pytest.mark.parametrize("victims", checkered([("driver",), ("agent",), ("driver", "agent")]), ids="-".join)
def test_a_kill_when_it_is_switched(bench: OnBoth, victims: tuple[str, ...]) -> None:
    """The guardians give it back."""
    with no_reset(bench):
        kill_when_it_is_switched(bench, EXEC, victims)


def test_what_is_missing_is_refused_with_a_remedy(bench: OnBoth) -> None:
    """Before anything is frozen."""
    bench.destination.exec(["ip", "address", "del", "10.77.1.100/32", "dev", "lo"])
    ran = run_migrate(bench.origin, *EXEC, bench.pid, "destination")
    bench.destination.exec(["ip", "address", "add", "10.77.1.100/32", "dev", "lo"])
    assert ran.status == 3 and ran.codes == {("address-missing", "destination")}
    ran.must_say("destination", "10.77.1.100", "not on this host", "ip addr add 10.77.1.100/32 dev lo")
    ran = run_migrate(bench.origin, "--switch", "exec:/etc/migrate/other", bench.pid, "destination")
    assert ran.status == 3 and ran.codes == {("switch-impossible", "origin")}
    bench.destination.exec(["chmod", "o+w", "/etc/migrate/network"])
    ran = run_migrate(bench.origin, *EXEC, bench.pid, "destination")
    bench.destination.exec(["chmod", "o-w", "/etc/migrate/network"])
    assert ran.status == 3
    ran.must_say("destination", "others than root may change /etc/migrate/network")
    assert_goes_on_at_origin(bench)
    assert told(*movers(bench)) == []


def movers(bench: OnBoth) -> tuple[Host, Host]:
    return bench.origin, bench.destination
