"""PostgreSQL, whose processes share memory of System V, in an IPC namespace of its own: no transaction fails."""

from __future__ import annotations

import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.hosts import MOVERS, listeners, spawn
from harness.migrate import run_migrate
from harness.wait import eventually

from migrate.lab import Host, Lab

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("clean")]

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
PORT, DATA, NOT_ROOT = 5432, "/srv/postgresql", "/srv/not_root.so"
#: It refuses to run as root, and CRIU can dump another user's processes only where root has CAP_SYS_RESOURCE, which
#: that of a machine for tests often has not. So it runs as root, and believes that it does not.
NOT_ROOT_CODE = "int getuid(void){return %d;} int geteuid(void){return %d;}"
#: All of its memory is of System V. A check for deadlocks is due after 600 s, and not while it is frozen.
SETTINGS = f"""
listen_addresses = '*'
port = {PORT}
unix_socket_directories = ''
dynamic_shared_memory_type = sysv
deadlock_timeout = 600s
fsync = off
autovacuum = off
jit = off
max_connections = 20
"""


@pytest.fixture
def data(lab: Lab) -> Iterator[None]:
    """An empty cluster on origin, and what makes it run as root on both; neither afterwards."""
    compiler = shutil.which("gcc")
    if not (PROGRAMS and compiler):
        pytest.skip("needs `tools/setup long`: PostgreSQL and gcc")
    user = pwd.getpwnam("postgres").pw_uid
    for name in MOVERS:
        command = [compiler, "-shared", "-x", "c", "-o", NOT_ROOT, "-"]
        lab.hosts[name].exec(["sh", "-c", f"echo '{NOT_ROOT_CODE % (user, user)}' | {' '.join(command)}"])
    origin = lab.hosts["origin"]
    origin.exec(["install", "-d", "-o", "postgres", DATA])
    make = ["initdb", "-D", DATA, "-A", "trust", "-U", "postgres", "-N", "--locale=C"]
    origin.exec(_as_if_not_root(*make), timeout=120)
    for name, text in (("postgresql.conf", SETTINGS), ("pg_hba.conf", "host all all all trust")):
        origin.exec(["sh", "-c", f'echo "{text}" >> {DATA}/{name}'])
    yield
    for name in MOVERS:
        lab.hosts[name].exec(["sh", "-c", f"pkill -9 -x postgres; rm -rf {DATA} {NOT_ROOT}"], check=False)


def _as_if_not_root(program: str, *words: str) -> list[str]:
    return ["env", "LC_ALL=C", f"LD_PRELOAD={NOT_ROOT}", str(PROGRAMS[0] / program), *words]


def pgbench(lab: Lab, *words: str) -> list[str]:
    """pgbench's command, for the peer."""
    return [str(PROGRAMS[0] / "pgbench"), "-h", lab.service.ipv4, "-p", str(PORT), "-U", "postgres", *words]


def segments(host: Host, pid: int) -> list[list[str]]:
    """Key, number, owner, mode and size of each in the namespace of *pid*."""
    shown = host.exec(["nsenter", "-t", str(pid), "-i", "ipcs", "-m"]).stdout
    return [line.split()[:5] for line in shown.splitlines() if line.startswith("0x")]


def test_there_and_back_under_load(lab: Lab, data: None) -> None:
    """With its data, by --copy-tree; the judge is pgbench on the peer."""
    origin, peer = lab.hosts["origin"], lab.hosts["peer"]
    command = ["unshare", "--ipc", *_as_if_not_root("postgres", "-D", DATA)]
    pid = spawn(origin, command, log=f"{DATA}/log")
    eventually(lambda: listeners(origin, PORT), "it listens")
    peer.exec(pgbench(lab, "-i", "-q", "postgres"), timeout=120)
    before = segments(origin, pid)
    assert len(before) >= 3
    load = pgbench(lab, "-c", "4", "-T", "600", "-P", "1", "postgres")
    client = peer.popen(load, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    time.sleep(1)  # it is at work by then, which is judged in the end
    for start, end in (MOVERS, MOVERS[::-1]):
        moved = run_migrate(lab.hosts[start], "--copy-tree", DATA, pid, end, timeout_s=200)
        assert (moved.status, moved.report["destination_pid"]) == (0, pid), moved.said
        assert moved.report["connections"] == 4
        assert segments(lab.hosts[end], pid) == before
    time.sleep(2)  # two more lines of it
    client.send_signal(2)
    said, _ = client.communicate()
    steps = [line for line in said.splitlines() if line.startswith("progress:")]
    assert len(steps) > 3 and all(line.endswith(" 0 failed") for line in steps), said
    assert all(float(line.split()[3]) > 0 for line in steps[-2:]), said
    assert "error" not in said and "aborted" not in said, said
