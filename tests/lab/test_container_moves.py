"""`migrate --container` moves a container of plain runc or crun there and back, and no connection notices."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from harness import containers
from harness.containers import HOSTS, REDIS, Containers, there_and_back
from harness.migrate import run_migrate
from harness.plain_runtime import BUNDLE, NAME, Plain
from harness.steady import asked, clients, served

from migrate.lab import Lab

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(bool(containers.missing()), reason="needs `make setup-containers`"),
    pytest.mark.timeout(600),
]
MOVES = 4
#: What the clients have counted in all, as the server at an address knows it.
COUNTED = (
    "import redis, sys; r = redis.Redis(sys.argv[1]); print(sum(int(r.get(f'counter{n}')) for n in range(3)))"
)


@pytest.fixture(scope="module")
def built() -> Iterator[Containers]:
    """A lab of its own, with a bridge to the peer on both hosts."""
    with Lab(f"moves-{os.getpid()}") as lab:
        yield Containers(lab)
    containers.sweep()


@pytest.fixture(params=[("runc", "bridge"), ("crun", "bridge"), ("runc", "macvlan")], ids="-".join)
def plain(built: Containers, request: pytest.FixtureRequest) -> Iterator[Plain]:
    """No container is there before, or stays."""
    made = Plain(built.lab, *request.param, apart=True)
    made.give(REDIS)
    yield made
    made.remove()


def test_what_it_writes_goes_along(built: Containers) -> None:
    """A log of all that clients have had answered, written until the freeze, has it all on the last host."""
    lab, plain = built.lab, Plain(built.lab, "runc", "bridge", apart=True)
    plain.give((*REDIS, "--appendonly", "yes", "--appendfsync", "no", "--dir", "/tmp"))
    try:
        plain.run()
        plain.wire_bare(HOSTS[1])
        with clients(lab, plain.address) as asking:
            for here, there in there_and_back(MOVES - 1):
                moved = run_migrate(lab.hosts[here], "--container", NAME, there)
                assert moved.status == 0, (moved.report, moved.stderr)
                assert served(asking, asked(asking))
            for one in asking:
                one.process.kill()
        log = f"cat {BUNDLE}/rootfs/tmp/appendonlydir/*.incr.aof | tr -d '\\r'"
        script = f"{log} | grep -c -i '^incrby$'"
        written = int(lab.hosts[there].exec(["sh", "-c", script]).stdout)
        counted = lab.hosts["peer"].exec([sys.executable, "-c", COUNTED, plain.address]).stdout
        assert written == int(counted) > 300
    finally:
        plain.remove()


def test_there_and_back_under_traffic(plain: Plain) -> None:
    plain.run()
    plain.wire_bare(HOSTS[1])
    with clients(plain.lab, plain.address) as asking:
        for here, there in there_and_back(MOVES):
            before = asked(asking)
            moved = run_migrate(plain.lab.hosts[here], "--container", NAME, there)
            assert moved.status == 0, (moved.report, moved.stderr)
            assert plain.runs(there) and not plain.runs(here)
            assert served(asking, before)
