"""A check without a HOST: what this host alone can tell, and no other one is asked."""

from __future__ import annotations

import pytest
from harness.hosts import spawn
from harness.migrate import run_migrate
from harness.wait import eventually

from migrate.checks.here import LEFT_OUT
from migrate.lab import Lab

pytestmark = pytest.mark.usefixtures("clean")

#: A server and its sixteen children, each of which has, if asked for, a descriptor that CRIU cannot make again.
SERVER = """import os, socket, sys, time
listener = socket.create_server(("10.77.1.100", 7411))
if "eventfd" in sys.argv:
    os.eventfd(1, os.EFD_SEMAPHORE)
for _ in range(16):
    if not os.fork():
        break
time.sleep(1000)
"""


def serve(lab: Lab, *words: str) -> int:
    """The server's PID, when all its children run."""
    origin = lab.hosts["origin"]
    pid = spawn(origin, ["python3", "-c", SERVER, *words])
    children = ["pgrep", "-c", "-P", str(pid)]
    eventually(lambda: origin.exec(children, check=False).stdout.strip() == "16", "all children run")
    return pid


def test_it_says_what_it_knows_and_what_it_does_not(lab: Lab) -> None:
    origin = lab.hosts["origin"]
    pid = serve(lab)
    for word in (str(pid), ":7411"):
        checked = run_migrate(origin, "--check", word)
        assert (checked.status, checked.report["pid"], checked.report["host"]) == (0, pid, ""), checked.said
        assert checked.report["addresses"] == ["10.77.1.100"] and LEFT_OUT in checked.said
        assert [one["name"] for one in checked.events if one["event"] == "phase"] == ["check", "check"]
    text = origin.exec(["migrate", "--check", str(pid)]).stdout
    assert f"READY: nothing on this host is in the way of PID {pid}" in text and LEFT_OUT in text


def test_equal_reasons_are_one_in_text_json_and_report(lab: Lab) -> None:
    origin, page = lab.hosts["origin"], "/root/check.html"
    pid = serve(lab, "eventfd")
    checked = run_migrate(origin, "--check", "--report", page, pid)
    assert checked.status == 3, checked.report
    (reason,) = checked.report["reasons"]
    assert (checked.status, reason["code"]) == (3, "eventfd-semaphore") and LEFT_OUT in checked.said
    assert len(reason["pids"]) == 17 and pid in reason["pids"]
    text = origin.exec(["migrate", "--check", str(pid)], check=False).stdout
    for told in (text, origin.exec(["cat", page]).stdout):
        assert told.count("EFD_SEMAPHORE") == 1 and f"(PIDs {pid}, " in told and "and 9 more" in told
    # What another host would say has no say here: there is none of that name.
    assert run_migrate(origin, "--check", pid, "nosuchhost").report["error"]["kind"] == "TransportError"
    assert run_migrate(origin, "--check", pid, "destination").codes == {("eventfd-semaphore", "origin")}


def test_a_process_that_ends_or_is_none(lab: Lab) -> None:
    origin = lab.hosts["origin"]
    assert run_migrate(origin, "--check", 4194000).codes == {("no-such-process", "origin")}
    assert run_migrate(origin, "--check", ":7419").codes == {("no-process", "origin")}
    assert run_migrate(origin, "--check", 1).codes == {("init", "origin"), ("self", "origin")}
