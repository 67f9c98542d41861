"""A driver that lies to the agent, an agent that lies to the driver: it costs a migration, and nothing else.

The process goes on at the origin, nothing is left on either host, and nobody else's process or address is touched.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from harness.left import View
from harness.migrate import Ran, run_migrate
from harness.workloads import WORKLOADS
from kills import Bench
from kills_outcomes import assert_goes_on_at_origin, assert_moved


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    return loaded.ready()


def assert_tame(ran: Ran) -> None:
    """What a liar says steers no terminal."""
    assert "\x1b" not in ran.output + ran.stderr


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        ("stranger", "which was announced"),
        ("other-root", "which was announced"),
        ("others-address", "10.77.1.2 is already on this host"),
        ("others-ici", "connections on 10.77.1.2, fd77:1::2, which does not move with the process"),
        ("lost-ici", "connections"),
        ("unheld", "sockets that nobody holds"),
        ("order", "sent commit where"),
        ("image-name", "root/written"),
        ("image-offset", "inventory.img"),
        ("manifest", "img"),
        ("copy-path", "not a path to copy to"),
        ("frame", "ended with status 1"),
    ],
)
def test_a_driver_that_lies(bench: Bench, lie: str, told: str) -> None:
    stranger = bench.destination.spawn(["sleep", "4747"])
    try:
        words = [sys.executable, str(WORKLOADS / "lying_driver.py"), lie, str(stranger), "--"]
        ran = run_migrate(bench.origin, bench.pid, "destination", program=words)
        assert_tame(ran)
        report = ran.report
        assert (ran.status, report["outcome"]) in ((3, "UNTOUCHED"), (4, "ROLLED_BACK"))
        assert told in report["error"]["message"], report["error"]
        assert View(bench.destination).processes[stranger][1] == "sleep 4747"
        assert {"eth0 10.77.1.2/24", "eth0 fd77:1::2/64"} <= View(bench.destination).addresses
        assert not (bench.destination.root / "root/written").exists()
    finally:
        bench.destination.exec(["kill", "-9", str(stranger)])
    assert_goes_on_at_origin(bench)


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        ("texts", ""),
        ("failure", ""),
        ("early", "where|no question"),
        ("twice", "where|no question"),
        ("root", "with process 1"),
        ("phases", "with process 0"),
        ("switched-without", ""),
        ("frame-of-nothing", "an empty frame"),
        ("frame-too-long", "not a frame"),
        ("frame-of-junk", "cannot be decoded|not known"),
    ],
)
def test_an_agent_that_lies(bench: Bench, lie: str, told: str) -> None:
    agent = bench.destination.root / f"root/lying-{lie}"
    agent.write_text(f"#!/bin/sh\nexec {sys.executable} {WORKLOADS / 'lying_agent.py'} {lie}\n")
    agent.chmod(0o755)
    try:
        ran = run_migrate(bench.origin, "--agent", f"/root/{agent.name}", bench.pid, "destination")
        assert_tame(ran)
        report = ran.report
        assert (ran.status, report["outcome"]) in ((3, "UNTOUCHED"), (4, "ROLLED_BACK")), report
        assert any(word in report["error"]["message"] for word in told.split("|")), report["error"]
        assert len(ran.output) < 3_000_000
    finally:
        Path(agent).unlink()
    assert_goes_on_at_origin(bench, within_s=20)


def test_junk_among_the_packets_of_the_gap(bench: Bench) -> None:
    """It is given to nobody, and those among which it is arrive."""
    words = [sys.executable, str(WORKLOADS / "lying_driver.py"), "gap", "--"]
    assert run_migrate(bench.origin, bench.pid, "destination", program=words).report["outcome"] == "MOVED"
    assert_moved(bench)
