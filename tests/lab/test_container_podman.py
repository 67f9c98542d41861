"""`migrate --container` moves a container of podman there and back, and no connection notices."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import containers
from harness.containers import HOSTS, NETWORK, REDIS, Containers, there_and_back
from harness.migrate import Held, run_migrate
from harness.steady import asked, clients, served

from migrate.lab import Lab

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(bool(containers.missing()), reason="needs `make setup-containers`"),
    pytest.mark.timeout(600),
]
NAME = "store"
MOVES = 4
#: A log of all that clients have had answered, in its files.
LOGGING = (*REDIS, "--appendonly", "yes", "--appendfsync", "no", "--dir", "/tmp")


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


def told(pods: Containers, host: str) -> dict[str, Any]:
    """What podman says of it there."""
    (found,) = json.loads(pods.lab.hosts[host].exec(["podman", "inspect", NAME]).stdout)
    return dict(found)


def same(found: dict[str, Any]) -> list[Any]:
    """What is to be the same on the other host."""
    networks = found["NetworkSettings"]["Networks"][NETWORK]
    return [
        *(found[one] for one in ("Id", "Name", "Args", "Image", "RestartCount")),
        *(networks[one] for one in ("IPAddress", "MacAddress")),
        found["HostConfig"]["RestartPolicy"],
        found["Config"]["Labels"],
    ]


def test_there_and_back_under_traffic(pods: Containers) -> None:
    """Whoever restarts it when it ends does not, where it is ended once it has moved."""
    options = ["--restart", "always", "--label", "ours=yes", "--no-healthcheck"]
    address = pods.run(HOSTS[0], NAME, 70, REDIS, *options)
    before = same(told(pods, HOSTS[0]))
    with clients(pods.lab, address) as asking:
        for here, there in there_and_back(MOVES):
            so_far = asked(asking)
            moved = run_migrate(pods.lab.hosts[here], "--container", NAME, there)
            assert moved.status == 0, (moved.report, moved.stderr)
            assert pods.names(there) == [NAME] and pods.names(here, every=True) == []
            assert served(asking, so_far)
            assert same(told(pods, there)) == before
    pods.lab.hosts[there].exec(["podman", "stop", "-t", "5", NAME])
    assert pods.names(there) == [] and pods.names(there, every=True) == [NAME]


def test_what_it_has_written_goes_along(pods: Containers) -> None:
    """Until the freeze, to its files and to /dev/shm; and its routes are as they were."""
    for name in HOSTS:
        file = Path(f"{pods.lab.hosts[name].root}/etc/containers/networks/{NETWORK}.json")
        file.write_text(file.read_text().replace('"internal": true', '"internal": false'))
    address = pods.run(HOSTS[0], NAME, 73, LOGGING)
    routes = pods.inside(HOSTS[0], NAME, "ip", "route")
    assert routes.startswith("default via")
    shared = Path(pods.lab.hosts[HOSTS[0]].root, told(pods, HOSTS[0])["StaticDir"].lstrip("/"), "shm/shared")
    shared.write_text("in memory")
    with clients(pods.lab, address) as asking:
        for here, there in there_and_back(MOVES - 1):
            moved = run_migrate(pods.lab.hosts[here], "--container", NAME, there)
            assert moved.status == 0, (moved.report, moved.stderr)
            assert served(asking, asked(asking))
        for one in asking:
            one.process.kill()
    incremented = sum(int(one) for one in counters(pods, there, address))
    root = pods.lab.hosts[there].exec(["podman", "mount", NAME]).stdout.strip()
    log = f"cat {root}/tmp/appendonlydir/*.incr.aof | tr -d '\\r' | grep -c -i '^incrby$'"
    assert int(pods.lab.hosts[there].exec(["sh", "-c", log]).stdout) == incremented > 300
    static = told(pods, there)["StaticDir"].lstrip("/")
    assert Path(pods.lab.hosts[there].root, static, "shm/shared").read_text() == "in memory"
    expected = routes.replace(containers.GATEWAYS[HOSTS[0]], "GATEWAY")
    found = pods.inside(there, NAME, "ip", "route").replace(containers.GATEWAYS[there], "GATEWAY")
    assert found == expected


def counters(pods: Containers, host: str, address: str) -> list[str]:
    """What the clients have counted, as redis there says it."""
    words = [f"-h {address} GET counter{number}" for number in range(3)]
    return [pods.inside(host, NAME, "redis-cli", *one.split()).strip() for one in words]


def test_what_it_has_written_is_sent_ahead(pods: Containers) -> None:
    """Nothing of that travels while it is frozen; what is written then, and what goes, does."""
    address = pods.run(HOSTS[0], NAME, 74, LOGGING)
    written = (
        "head -c 64M /dev/urandom > much; echo before > changed; touch gone; ln much twin; sha256sum much"
    )
    content = in_files(pods, HOSTS[0], written)
    with clients(pods.lab, address) as asking:
        held = Held(pods.lab.hosts[HOSTS[0]], "FROZEN", "--max-gap", "60", "--container", NAME, HOSTS[1])
        try:
            in_files(pods, HOSTS[0], "echo later > changed; rm gone; mkdir new; echo new > new/one")
            held.go()
            moved = held.end()
        finally:
            held.stop()
        assert moved.status == 0, moved.report
        assert served(asking, asked(asking))
    assert moved.report["image_bytes"] < 32 << 20, moved.report
    found = in_files(pods, HOSTS[1], "sha256sum much; cat changed new/one; ls gone || true")
    assert found == f"{content}later\nnew\n"
    assert in_files(pods, HOSTS[1], "test much -ef twin && echo same") == "same\n"


def in_files(pods: Containers, host: str, script: str) -> str:
    """What *script* says, run on *host* in the container's own files."""
    words = (
        f"cd $(podman mount {NAME})/tmp && {{ {script}; }} 2>/dev/null; cd /; podman umount {NAME} >/dev/null"
    )
    return pods.lab.hosts[host].exec(["sh", "-c", words]).stdout
