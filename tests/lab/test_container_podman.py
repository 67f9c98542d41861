"""`migrate --container` moves a container of podman there and back, and no connection notices."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from harness import containers
from harness.containers import HOSTS, REDIS, Containers, there_and_back
from harness.migrate import run_migrate
from harness.steady import asked, clients, served

from migrate.lab import Lab

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(bool(containers.missing()), reason="needs `make setup-containers`"),
    pytest.mark.timeout(600),
]
NAME = "store"
MOVES = 4


@pytest.fixture(scope="module")
def built() -> Iterator[Containers]:
    """A lab of its own, with podman on both hosts, each with cgroups of its own."""
    with Lab(f"podman-{os.getpid()}") as lab:
        yield Containers(lab, apart=True)
    containers.sweep()


@pytest.fixture
def pods(built: Containers) -> Iterator[Containers]:
    """No container is there before, or stays."""
    yield built
    built.remove_all()


def test_there_and_back_under_traffic(pods: Containers) -> None:
    address = pods.run(HOSTS[0], NAME, 70, REDIS)
    with clients(pods.lab, address) as asking:
        for here, there in there_and_back(MOVES):
            before = asked(asking)
            moved = run_migrate(pods.lab.hosts[here], "--container", NAME, there)
            assert moved.status == 0, (moved.report, moved.stderr)
            assert pods.names(there) == [NAME] and pods.names(here, every=True) == []
            assert served(asking, before)
