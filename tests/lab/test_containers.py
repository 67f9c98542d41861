"""Containers by podman and runc on the hosts of the lab, as the peer finds them; what is left of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import containers
from harness.containers import HOSTS, NGINX, REDIS, Containers
from harness.hosts import connect
from harness.wait import eventually

from migrate.lab import Lab

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(bool(containers.missing()), reason="needs `make setup-containers`"),
]

#: Builds a lab with a container, says so, and does not clean up.
KILLED = """
import sys, time
from harness.containers import REDIS, Containers
from migrate.lab import Lab
lab = Lab(sys.argv[1])
lab.up()
Containers(lab).run("origin", "killed", 50, REDIS)
print("up", flush=True)
time.sleep(1000)
"""


@pytest.fixture(scope="module")
def built() -> Iterator[Containers]:
    """A lab of its own, with podman on both hosts."""
    with Lab(f"ctr-{os.getpid()}") as lab:
        yield Containers(lab)
    containers.sweep()
    assert containers.cgroups_left(lab) == []


@pytest.fixture
def pods(built: Containers) -> Iterator[Containers]:
    """No container is there before, or stays."""
    yield built
    built.remove_all()


def answer(made: Containers, address: str, port: int, question: bytes) -> bytes:
    """What the peer gets for *question* from a server that may still be starting."""

    def reached() -> socket.socket | None:
        try:
            return connect(made.lab.hosts["peer"], address, port)
        except ConnectionRefusedError:
            return None

    with eventually(reached, f"{address}:{port} listens") as connection:
        connection.sendall(question)
        return connection.recv(4096)


@pytest.mark.parametrize("host", HOSTS)
def test_the_peer_talks_to_a_container(pods: Containers, host: str) -> None:
    address = pods.run(host, "redis", 50, REDIS)
    assert answer(pods, address, 6379, b"PING\r\n") == b"+PONG\r\n"
    address = pods.run(host, "nginx", 51, NGINX)
    assert answer(pods, address, 80, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert sorted(pods.names(host)) == ["nginx", "redis"]
    (other,) = set(HOSTS) - {host}
    assert pods.names(other) == []


def test_what_a_killed_run_leaves_goes_at_the_next(tmp_path: Path) -> None:
    name = f"ctrk-{os.getpid()}"
    lab = Lab(name)
    there = os.pathsep.join(sys.path)
    run = subprocess.Popen(
        [sys.executable, "-c", KILLED, name],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": there},
        text=True,
    )
    try:
        assert run.stdout is not None and run.stdout.readline() == "up\n"
        run.send_signal(signal.SIGKILL)
        run.wait()
        assert containers.cgroups_left(lab) != []
    finally:
        run.kill()
        run.wait()
        lab.down()
    containers.sweep()
    assert containers.cgroups_left(lab) == []
    assert name not in Path("/proc/mounts").read_text()
