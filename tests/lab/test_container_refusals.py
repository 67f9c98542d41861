"""`migrate --container` refuses what it cannot move, all reasons at once, and the container has not noticed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import containers
from harness.containers import HOSTS, REDIS, Containers
from harness.migrate import run_migrate
from harness.plain_runtime import BUNDLE, NAME, Plain

from migrate.lab import Lab

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(bool(containers.missing()), reason="needs `make setup-containers`"),
    pytest.mark.timeout(600),
]
ORIGIN, DESTINATION = HOSTS


@pytest.fixture(scope="module")
def plain() -> Iterator[Plain]:
    """One of runc's that runs at the origin; nothing is ready on the destination but the runtime."""
    with Lab(f"refused-{os.getpid()}") as lab:
        Containers(lab)
        made = Plain(lab, "runc", "bridge", apart=True)
        made.give(REDIS)
        made.run()
        yield made
        made.remove()
    containers.sweep()


def test_all_reasons_at_once(plain: Plain) -> None:
    origin, destination = (plain.lab.hosts[name] for name in HOSTS)
    file = Path(f"{destination.root}{BUNDLE}/config.json")
    was = file.read_text()
    said = json.loads(was)
    said["hostname"] = "another"
    file.write_text(json.dumps(said))
    destination.exec(["mkdir", "-p", f"/run/runc/{NAME}"])
    try:
        ran = run_migrate(origin, "--container", NAME, DESTINATION)
    finally:
        destination.exec(["rmdir", f"/run/runc/{NAME}"])
        file.write_text(was)
    assert ran.status == 3 and ran.report["outcome"] == "UNTOUCHED"
    wanted = {"container-taken", "bundle-differs", "no-network"}
    assert {(code, DESTINATION) for code in wanted} <= ran.codes, ran.codes
    ran.must_say(DESTINATION, "has a container", NAME)
    assert plain.runs(ORIGIN)


def test_no_runtime_there(plain: Plain) -> None:
    origin, destination = (plain.lab.hosts[name] for name in HOSTS)
    destination.exec(["mount", "--bind", "/dev/null", "/usr/sbin/runc"])
    try:
        ran = run_migrate(origin, "--check", "--container", f"{NAME}@runc", DESTINATION)
    finally:
        destination.exec(["umount", "/usr/sbin/runc"])
    assert ran.status == 3 and ("no-runtime", DESTINATION) in ran.codes, ran.codes


def test_no_such_container(plain: Plain) -> None:
    ran = run_migrate(plain.lab.hosts[ORIGIN], "--container", "other", DESTINATION)
    assert ran.status == 3 and ran.codes == {("no-such-container", ORIGIN)}


def test_it_can_be_checked_and_has_not_noticed(plain: Plain) -> None:
    origin = plain.lab.hosts[ORIGIN]
    plain.wire_bare(DESTINATION)
    before = origin.exec(["runc", "state", NAME]).stdout
    ran = run_migrate(origin, "--check", "--container", NAME, DESTINATION)
    assert ran.status == 0, ran.report
    assert origin.exec(["runc", "state", NAME]).stdout == before
    assert not origin.exec(["sh", "-c", "ls -d /run/migrate-asks-* 2>/dev/null"], check=False).stdout
