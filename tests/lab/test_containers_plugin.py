"""Stock podman and runc move containers between hosts; with the plug-in no connection notices, says the peer."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import containers, plugin
from harness.containers import HOSTS, MACVLAN, NETWORK, REDIS, Containers, there_and_back
from harness.steady import CLIENTS, asked, clients, served, whole
from harness.wait import eventually
from harness.workloads import Silent

from migrate.lab import Lab

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(bool(containers.missing()), reason="needs `make setup-containers`"),
    pytest.mark.timeout(900),
]
MOVES, SOME = 20, 4


@pytest.fixture(scope="module")
def built() -> Iterator[Containers]:
    """A lab of its own, with podman on both hosts."""
    with Lab(f"plug-{os.getpid()}") as lab:
        yield Containers(lab)
    containers.sweep()


@pytest.fixture
def pods(built: Containers) -> Iterator[Containers]:
    """No container is there before, or stays."""
    yield built
    built.remove_all()


def moved(
    made: Containers, moves: int, network: str, runtime: str = "runc"
) -> Iterator[list[dict[str, Any]]]:
    """Move a redis under load again and again; what its clients say of each time."""
    address = made.run("origin", "redis", 50, REDIS, network=network, runtime=runtime)
    with clients(made.lab, address) as asking:
        for here, there in there_and_back(moves):
            made.move("redis", here, there)
            assert made.names(there) == ["redis"] and made.names(here) == []
            yield (after := asked(asking))
            assert served(asking, after)


@pytest.mark.parametrize("network", [NETWORK, MACVLAN])
def test_twenty_moves_under_traffic_of_three_clients(pods: Containers, network: str) -> None:
    with plugin.installed(pods.lab):
        for found in moved(pods, MOVES, network):
            assert whole(found), found
        assert [plugin.said(pods.lab.hosts[name]) for name in HOSTS] == ["", ""]


@pytest.mark.parametrize("network", [NETWORK, MACVLAN])
def test_podman_with_crun(pods: Containers, network: str) -> None:
    with plugin.installed(pods.lab):
        for found in moved(pods, SOME, network, "crun"):
            assert whole(found), found
        assert [plugin.said(pods.lab.hosts[name]) for name in HOSTS] == ["", ""]


@pytest.mark.parametrize("network", [NETWORK, MACVLAN])
def test_without_the_plugin_connections_are_reset(pods: Containers, network: str) -> None:
    """So that the test before this one can fail."""
    errors = []
    with contextlib.suppress(Silent):  # a client that was reset says so and ends
        for found in moved(pods, MOVES, network):
            errors += [one["error"] for one in found if one["error"]]
            if errors:
                break
    assert any("reset" in one for one in errors), errors


def test_without_the_helper_it_takes_longer_and_works(pods: Containers) -> None:
    """The script does the work itself. New ports of the bridge are not muted, so it may be reset."""
    with plugin.installed(pods.lab, resident=False):
        address = pods.run("origin", "redis", 50, REDIS)
        with clients(pods.lab, address) as asking:
            pods.move("redis", "origin", "destination")
            assert pods.names("destination") == ["redis"]
            del asking


def test_sockets_are_as_they_were(pods: Containers) -> None:
    """What CRIU does not know of them: the algorithm and the largest segment; the window goes on in the ICI."""
    with plugin.installed(pods.lab):
        address = pods.run("origin", "redis", 50, REDIS)
        reno = "net.ipv4.tcp_congestion_control=reno"
        pods.inside("origin", "redis", "sysctl", "-w", reno)
        with clients(pods.lab, address):
            before = algorithms(pods, "origin")
            assert set(before) == {"reno"} and len(before) == CLIENTS
            pods.move("redis", "origin", "destination")
            assert algorithms(pods, "destination") == before


def test_in_place(pods: Containers) -> None:
    """Stopped and started again on the host it is on: podman gives it a network anew, as on another one."""
    origin = pods.lab.hosts["origin"]
    with plugin.installed(pods.lab):
        address = pods.run("origin", "redis", 50, REDIS)
        with clients(pods.lab, address) as asking:
            before = asked(asking)
            for what in ("checkpoint", "restore"):
                origin.exec(["podman", "container", what, "--tcp-established", "redis"])
            assert served(asking, before)
        assert plugin.said(origin) == ""


def test_left_running(pods: Containers) -> None:
    """A copy is taken of it, and it goes on with its connections."""
    origin = pods.lab.hosts["origin"]
    with plugin.installed(pods.lab):
        address = pods.run("origin", "redis", 50, REDIS)
        with clients(pods.lab, address) as asking:
            before = asked(asking)
            words = ["--leave-running", "--export=/root/copy.tar", "--tcp-established", "redis"]
            origin.exec(["podman", "container", "checkpoint", *words])
            assert served(asking, before)
        assert "tcpcp-criu" not in pods.inside("origin", "redis", "nft", "list", "tables")


def damage(archive: Path) -> None:
    """What the plug-in has put there makes no sense any more."""
    with tarfile.open(archive) as before, tarfile.open(damaged := archive.with_suffix(".new"), "w") as after:
        for member in before.getmembers():
            content = before.extractfile(member) if member.isreg() else None
            if Path(member.name).name == "tcpcp-sockets.json":
                content, member.size = io.BytesIO(b"{"), 1
            after.addfile(member, content)
    damaged.replace(archive)


def test_a_plugin_that_fails_at_the_restore_loses_no_container(pods: Containers) -> None:
    with plugin.installed(pods.lab):
        address = pods.run("origin", "redis", 50, REDIS)
        with clients(pods.lab, address) as asking:
            before = asked(asking)
            pods.move("redis", "origin", "destination", damage)
            assert pods.names("destination") == ["redis"]
            assert served(asking, before)  # by what CRIU knows itself
        assert "tcpcp-sockets.json" in plugin.said(pods.lab.hosts["destination"])


def algorithms(made: Containers, host: str) -> list[str]:
    """Of each connection of the container."""
    lines = made.inside(host, "redis", "ss", "-tinOH", "state", "established").splitlines()
    return [word for line in lines for word in ("reno", "cubic") if f" {word} " in line]


def test_a_helper_that_hangs_leaves_the_container_as_it_was(pods: Containers) -> None:
    """CRIU is told no, in time, and lets the container go on; what was asked is not done later either."""
    origin = pods.lab.hosts["origin"]
    with plugin.installed(pods.lab):
        address = pods.run("origin", "redis", 50, REDIS)
        with clients(pods.lab, address) as asking:
            with plugin.stopped(origin):
                words = ["--export=/root/no.tar", "--tcp-established", "redis"]
                done = origin.exec(["podman", "container", "checkpoint", *words], check=False)
            assert done.returncode != 0
            assert pods.names("origin") == ["redis"]
            eventually(lambda: "nobody waits" in plugin.said(origin), "the helper goes on")
            assert "tcpcp-criu" not in pods.inside("origin", "redis", "nft", "list", "tables")
            assert served(asking, asked(asking))


def test_criu_killed_between_its_hooks_leaves_connections_free(pods: Containers) -> None:
    """The isolation goes with CRIU, not a long time later."""
    origin = pods.lab.hosts["origin"]
    with plugin.installed(pods.lab):
        address = pods.run("origin", "redis", 50, REDIS)
        pid = pods.root_process("origin", "redis")  # podman itself says nothing while it is at work
        tables = ["nsenter", f"--net=/proc/{pid}/ns/net", "nft", "list", "tables"]

        def isolated() -> bool:
            return "tcpcp-criu" in origin.exec(tables).stdout

        with clients(pods.lab, address):
            with plugin.held(origin, "post-dump") as reached:
                words = ["--export=/root/no.tar", "--tcp-established", "redis"]
                checkpoint = origin.popen(["podman", "container", "checkpoint", *words])
                reached()
                assert isolated()
                origin.exec(["pkill", "-KILL", "-x", "criu"])
                checkpoint.wait(60)
            eventually(lambda: not isolated(), "nothing is isolated any more")


def test_a_helper_whose_child_was_killed_does_it_all_the_same(pods: Containers) -> None:
    """The one that waits for the next hook, on both hosts."""
    with plugin.installed(pods.lab):
        address = pods.run("origin", "redis", 50, REDIS)
        with clients(pods.lab, address) as asking:
            before = asked(asking)
            for name in HOSTS:
                pods.lab.hosts[name].exec(["pkill", "-KILL", "-n", "-f", plugin.RESIDENT[-1]])
            pods.move("redis", "origin", "destination")
            assert served(asking, before)
        assert [plugin.said(pods.lab.hosts[name]) for name in HOSTS] == ["", ""]
