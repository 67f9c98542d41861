"""A kernel with soft-dirty, where CRIU's own pre-copy works, beside which `migrate` needs none of it.

What changes between two of its pre-dumps is what the kernel has marked. Of a process that is tracked so no more is
moved than in CRIU's two rounds, and it is the same afterwards.
"""

from __future__ import annotations

import pytest
from conftest import PATIENT, REDIS
from harness.hosts import spawn
from harness.migrate import move
from harness.wait import eventually

from migrate.lab import Host
from migrate.lab.vm.lab import VmLab

pytestmark = pytest.mark.usefixtures("clean")

KEYS, VALUE_BYTES = 3000, 10_000
MB = 1 << 20
WORK = "/srv/pre-copy"


def pre_dump(host: Host, pid: int, number: int) -> int:
    """CRIU's round *number*, from 1 on, of what has changed since the one before; bytes of memory in it."""
    directory = f"{WORK}/{number}"
    host.exec(["mkdir", "-p", directory])
    before = ["--prev-images-dir", f"../{number - 1}"] if number > 1 else []
    host.exec(["criu", "pre-dump", "--track-mem", "--tree", str(pid), "--images-dir", directory, *before])
    sizes = host.exec(["sh", "-c", f"stat -c %s {directory}/pages-*.img"]).stdout.split()
    return sum(map(int, sizes))


def digest(host: Host, address: str) -> str:
    """Of all that redis has."""
    return host.exec(["redis-cli", "-h", address, "debug", "digest"]).stdout.strip()


@pytest.mark.long
def test_a_process_whose_memory_criu_tracks(lab: VmLab) -> None:
    origin, peer = lab.hosts["origin"], lab.hosts["peer"]
    pid = spawn(origin, [*REDIS, "--enable-debug-command", "yes"])
    cli = ["redis-cli", "-h", lab.service.ipv4]
    eventually(lambda: peer.exec([*cli, "ping"], check=False).stdout == "PONG\n", "redis answers")
    peer.exec([*cli, "debug", "populate", str(KEYS), "key", str(VALUE_BYTES)])
    try:
        all_of_it, changed = pre_dump(origin, pid, 1), pre_dump(origin, pid, 2)
        print(f"CRIU: {all_of_it} bytes, then {changed}")
        assert all_of_it > KEYS * VALUE_BYTES > 4 * changed
    finally:
        origin.exec(["rm", "-rf", WORK])
    before = digest(peer, lab.service.ipv4)
    moved = move(lab, pid, "--address", lab.service.ipv4, *PATIENT)
    sent = moved.report["image_bytes"]
    print(f"moved: {sent} bytes, frozen {moved.report['frozen_ms']} ms")
    assert sent < all_of_it + changed + MB
    assert digest(peer, lab.service.ipv4) == before
