"""`migrate` on hosts where CRIU has been told of the plug-in: what is for others does nothing for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.containers import HOSTS
from harness.hosts import spawn
from harness.migrate import move
from harness.wait import eventually
from harness.workloads import Client

from migrate.lab import Lab

pytestmark = pytest.mark.usefixtures("clean")
SERVER = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/"]


def test_migrate_does_not_run_the_hooks(lab: Lab) -> None:
    """They would fail here, and CRIU's dump with them."""
    hosts = [lab.hosts[name] for name in HOSTS]
    for host in hosts:
        host.exec(["migrate", "plugin", "install"])
        script = Path(f"{host.root}/etc/criu/tcpcp-hook")
        script.write_text(script.read_text().replace("exec /", "exec false /"))
    try:
        pid = spawn(lab.hosts["origin"], SERVER)
        words = ["redis-cli", "-h", lab.service.ipv4, "ping"]
        eventually(lambda: lab.hosts["peer"].exec(words, check=False).stdout == "PONG\n", "redis answers")
        client = Client.start(lab.hosts["peer"], "redis_counter.py", lab.service.ipv4)
        move(lab, pid)
        said = client.stop()
        assert (said["error"], said["wrong_answers"], said["reconnected"]) == ("", 0, False)
    finally:
        for host in hosts:
            host.exec(["migrate", "plugin", "uninstall"])
