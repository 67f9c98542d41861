"""`migrate --container`, and somebody dies on the way: the container runs on one host, its connections live."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from harness import containers
from harness.containers import HOSTS, REDIS, Containers
from harness.migrate import Held, moved_although_its_agent_died, run_migrate
from harness.plain_runtime import BUNDLE, NAME, Plain
from harness.steady import asked, clients, served
from harness.wait import eventually

from migrate.lab import Host, Lab

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(bool(containers.missing()), reason="needs `make setup-containers`"),
    pytest.mark.timeout(600),
]
ORIGIN, DESTINATION = HOSTS


@pytest.fixture(scope="module")
def built() -> Iterator[Containers]:
    """A lab of its own, with a bridge to the peer on both hosts."""
    with Lab(f"faults-{os.getpid()}") as lab:
        yield Containers(lab)
    containers.sweep()


@pytest.fixture(params=["runc", "crun"])
def plain(built: Containers, request: pytest.FixtureRequest) -> Iterator[Plain]:
    """One that runs at the origin, and may go to the destination."""
    made = Plain(built.lab, request.param, "bridge", apart=True)
    made.give(REDIS)
    made.run()
    made.wire_bare(DESTINATION)
    yield made
    made.remove()


def kill(host: Host, pattern: str) -> None:
    """kill -9 of what has *pattern* in its command line on *host*, in its own PID namespace."""
    script = f"for p in $(pgrep -f '{pattern}'); do [ $p = $$ ] || kill -9 $p; done"
    host.exec(["sh", "-c", script], check=False)


def left(plain: Plain, name: str) -> str:
    """What host *name* has of a container that is not there, or of a migration; "" for nothing."""
    script = f"""
        # That CRIU works there stays known, and what has arrived, for an origin that asks.
        ls -A /run/migrate 2>/dev/null | grep -v -e probe -e '^[.]arrived$'
        grep criu-root /proc/mounts
        ls -d /run/{plain.runtime}/{NAME} 2>/dev/null
        ip netns exec {NAME} nft list tables | grep migrate
        ip netns exec {NAME} ip -4 -o address show dev eth0
        exit 0
    """
    return plain.lab.hosts[name].exec(["sh", "-c", script]).stdout


def nothing_left(plain: Plain, name: str) -> bool:
    """Wait until there is nothing."""
    return eventually(lambda: not left(plain, name), lambda: f"left on {name}: {left(plain, name)}")


def files(plain: Plain, name: str) -> str:
    """What the bundle has on host *name*."""
    script = f"cd {BUNDLE} && find rootfs -type f | sort | xargs sha256sum | sha256sum"
    return plain.lab.hosts[name].exec(["sh", "-c", script]).stdout


#: Who dies where, by a part of its command line.
PARTIES: dict[str, Callable[[Held, Plain], None]] = {
    "driver": lambda held, plain: held.signal("KILL"),
    "agent": lambda held, plain: kill(plain.lab.hosts[DESTINATION], "[m]igrate-agent"),
    "runtime": lambda held, plain: kill(plain.lab.hosts[DESTINATION], f"[-]-bundle {BUNDLE} {NAME}"),
    "criu there": lambda held, plain: kill(plain.lab.hosts[DESTINATION], "^criu[: ]"),
    "criu here": lambda held, plain: kill(plain.lab.hosts[ORIGIN], "[c]riu swrk"),
}


@pytest.mark.parametrize("state", ["FROZEN", "ISOLATED", "RESTORED", "SWITCHED"])
@pytest.mark.parametrize("party", PARTIES)
def test_who_dies_before_the_commit(plain: Plain, party: str, state: str) -> None:
    origin, before = plain.lab.hosts[ORIGIN], files(plain, DESTINATION)
    with clients(plain.lab, plain.address) as asking:
        held = Held(origin, state, "--container", NAME, DESTINATION)
        try:
            PARTIES[party](held, plain)
            if party == "driver":
                held.killed()
            else:
                ended = held.end()
                assert ended.report["outcome"] == "ROLLED_BACK" and ended.status == 4, ended.report
        finally:
            held.stop()
        assert served(asking, asked(asking))
        assert plain.runs(ORIGIN) and not plain.runs(DESTINATION)
        assert nothing_left(plain, DESTINATION)
        assert files(plain, DESTINATION) == before
        moved = run_migrate(origin, "--container", NAME, DESTINATION)
        assert moved.status == 0, moved.report
        assert plain.runs(DESTINATION) and not plain.runs(ORIGIN) and served(asking, asked(asking))


def test_a_driver_that_dies_when_it_runs_there(plain: Plain) -> None:
    with clients(plain.lab, plain.address) as asking:
        held = Held(plain.lab.hosts[ORIGIN], "ACTIVATED", "--container", NAME, DESTINATION)
        held.signal("KILL")
        held.killed()
        assert served(asking, asked(asking))
        assert eventually(lambda: plain.runs(DESTINATION), "it runs there")
        assert nothing_left(plain, ORIGIN)


def test_an_agent_that_dies_when_it_was_given_the_container(plain: Plain) -> None:
    """What it had begun goes to its end: the runtime hears of no failure, which would end what runs."""
    with clients(plain.lab, plain.address) as asking:
        hosts = [plain.lab.hosts[name] for name in HOSTS]
        moved_although_its_agent_died(*hosts, "--container", NAME, DESTINATION)
        assert eventually(lambda: plain.runs(DESTINATION), "it runs there")
        assert served(asking, asked(asking))
        assert nothing_left(plain, ORIGIN)


def test_in_doubt_it_runs_there_and_is_released_here(plain: Plain) -> None:
    origin, destination = (plain.lab.hosts[name] for name in HOSTS)
    with clients(plain.lab, plain.address) as asking:
        held = Held(origin, "COMMITTED", "--container", NAME, DESTINATION)
        held.signal("KILL")
        held.killed()
        assert eventually(lambda: plain.runs(DESTINATION), "it runs there")
        assert served(asking, asked(asking))
        recovered = origin.exec(["migrate", "--recover", "--release", held.id], check=False)
        assert recovered.returncode == 0, recovered
        assert nothing_left(plain, ORIGIN)
        assert plain.runs(DESTINATION) and served(asking, asked(asking))
        assert destination.exec(["ls", f"{BUNDLE}/rootfs/usr/bin"]).stdout
