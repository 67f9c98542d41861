"""A move of a container of podman that fails, or whose party dies: it runs on one host, and both podmans know."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE

import pytest
from harness import containers
from harness.containers import HOSTS, IMAGE, NETWORK, PEER, PREFIX, REDIS, Containers
from harness.migrate import Held, Ran, moved_although_its_agent_died, run_migrate
from harness.steady import asked, clients, served
from harness.wait import eventually

from migrate.lab import Host, Lab

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(bool(containers.missing()), reason="needs `make setup-containers`"),
    pytest.mark.timeout(600),
]
ORIGIN, DESTINATION = HOSTS
NAME, NUMBER = "store", 71


@pytest.fixture(scope="module")
def built() -> Iterator[Containers]:
    """A lab of its own, with podman on both hosts, each with cgroups of its own."""
    with Lab(f"podfaults-{os.getpid()}") as lab:
        yield Containers(lab, apart=True)
    containers.sweep()


@pytest.fixture
def pods(built: Containers) -> Iterator[Containers]:
    """One container that runs at the origin."""
    built.run(ORIGIN, NAME, NUMBER, REDIS)
    yield built
    built.remove_all()


ADDRESS = f"{PREFIX}.{NUMBER}"


def kill(host: Host, pattern: str) -> None:
    """kill -9 of what has *pattern* in its command line on *host*."""
    script = f"for p in $(pgrep -f '{pattern}'); do [ $p = $$ ] || kill -9 $p; done"
    host.exec(["sh", "-c", script], check=False)


def left(pods: Containers, name: str) -> str:
    """What host *name* has of a container that is not there, or of a migration; "" for nothing."""
    script = """
        # That CRIU works there stays known, and what has arrived, for an origin that asks.
        ls -A /run/migrate 2>/dev/null | grep -v -e probe -e '^[.]arrived$'
        grep -e criu-root -e /merged /proc/mounts
        ls -A /run/runc /run/netns /var/lib/cni/networks 2>/dev/null | grep -v -e : -e '^$'
        nft list tables | grep migrate
        podman ps --all --quiet
        ip -o link show type veth | grep -v -e eth0 -e uplink0
        exit 0
    """
    return pods.lab.hosts[name].exec(["sh", "-c", script]).stdout


def nothing_left(pods: Containers, name: str) -> bool:
    """Wait until there is nothing."""
    return eventually(lambda: not left(pods, name), lambda: f"left on {name}: {left(pods, name)}")


#: Who dies where, by a part of its command line.
PARTIES: dict[str, Callable[[Held, Containers], None]] = {
    "driver": lambda held, pods: held.signal("KILL"),
    "agent": lambda held, pods: kill(pods.lab.hosts[DESTINATION], "[m]igrate-agent"),
    "podman": lambda held, pods: kill(pods.lab.hosts[DESTINATION], "[c]ontainer restore"),
    "runtime": lambda held, pods: kill(pods.lab.hosts[DESTINATION], "^/usr/bin/runc.*restore"),
    "criu there": lambda held, pods: kill(pods.lab.hosts[DESTINATION], "^criu[: ]"),
}


@pytest.mark.parametrize(
    ("party", "state"),
    [
        ("driver", "FROZEN"),
        ("driver", "SWITCHED"),
        ("agent", "ISOLATED"),
        ("agent", "RESTORED"),
        ("podman", "ISOLATED"),
        ("runtime", "RESTORED"),
        ("criu there", "RESTORED"),
    ],
)
def test_who_dies_before_the_commit(pods: Containers, party: str, state: str) -> None:
    origin = pods.lab.hosts[ORIGIN]
    with clients(pods.lab, ADDRESS) as asking:
        held = Held(origin, state, "--container", NAME, DESTINATION)
        try:
            PARTIES[party](held, pods)
            if party == "driver":
                held.killed()
            else:
                ended = held.end()
                assert ended.report["outcome"] == "ROLLED_BACK" and ended.status == 4, ended.report
        finally:
            held.stop()
        assert served(asking, asked(asking))
        assert pods.names(ORIGIN) == [NAME]
        assert nothing_left(pods, DESTINATION)
        moved = run_migrate(origin, "--container", NAME, DESTINATION)
        assert moved.status == 0, moved.report
        assert pods.names(DESTINATION) == [NAME] and nothing_left(pods, ORIGIN)
        assert served(asking, asked(asking))


def test_a_driver_that_dies_when_it_runs_there(pods: Containers) -> None:
    with clients(pods.lab, ADDRESS) as asking:
        held = Held(pods.lab.hosts[ORIGIN], "ACTIVATED", "--container", NAME, DESTINATION)
        held.signal("KILL")
        held.killed()
        assert served(asking, asked(asking))
        assert pods.names(DESTINATION) == [NAME]
        assert nothing_left(pods, ORIGIN)


def test_a_podman_that_dies_when_it_runs_there(pods: Containers) -> None:
    """It runs; that podman does not know of it, and what conmon does then, is told with what to do."""
    origin, destination = (pods.lab.hosts[name] for name in HOSTS)
    held = Held(origin, "SWITCHED", "--container", NAME, DESTINATION)
    try:
        destination.exec(["pkill", "-STOP", "-f", "[c]ontainer restore"])
        held.go()
        activated = f"grep -q ACTIVATED /run/migrate/{held.id}/journal"
        eventually(lambda: destination.exec(["sh", "-c", activated], check=False).returncode == 0, "it runs")
        kill(destination, "[c]ontainer restore")
        ended = held.end()
    finally:
        held.stop()
    assert ended.status == 0 and ended.report["outcome"] == "MOVED", ended.report
    note = next(one for one in ended.report["notes"] if "podman ended with status -9" in one)
    remedy = note.partition(" anew after: ")[2].partition(": ")[0]
    assert nothing_left(pods, ORIGIN)
    destination.exec(["sh", "-c", remedy])
    assert nothing_left(pods, DESTINATION)


def test_an_agent_that_dies_when_it_was_given_the_container(pods: Containers) -> None:
    """What it had begun goes to its end: neither runc nor podman hears of a failure, which would end what runs."""
    with clients(pods.lab, ADDRESS) as asking:
        hosts = [pods.lab.hosts[name] for name in HOSTS]
        moved_although_its_agent_died(*hosts, "--container", NAME, DESTINATION)
        assert eventually(lambda: pods.names(DESTINATION) == [NAME], "podman knows")
        assert served(asking, asked(asking))
        assert nothing_left(pods, ORIGIN)


def test_in_doubt_it_runs_there_and_is_released_here(pods: Containers) -> None:
    with clients(pods.lab, ADDRESS) as asking:
        held = Held(pods.lab.hosts[ORIGIN], "COMMITTED", "--container", NAME, DESTINATION)
        held.signal("KILL")
        held.killed()
        assert eventually(lambda: pods.names(DESTINATION) == [NAME], "it runs there")
        assert served(asking, asked(asking))
        recovered = pods.lab.hosts[ORIGIN].exec(["migrate", "--recover", "--release", held.id], check=False)
        assert recovered.returncode == 0, recovered
        assert nothing_left(pods, ORIGIN)
        assert served(asking, asked(asking))


def refused(pods: Containers, *wanted: str) -> Ran:
    """It is, for these reasons of the destination, and runs on."""
    ran = run_migrate(pods.lab.hosts[ORIGIN], "--container", NAME, DESTINATION)
    assert ran.status == 3 and ran.report["outcome"] == "UNTOUCHED", ran.report
    assert {code for code, where in ran.codes if where == DESTINATION} == {*wanted}, ran.report
    assert pods.names(ORIGIN) == [NAME]
    return ran


def test_name_address_network_and_image_are_looked_for_there(pods: Containers) -> None:
    """All at once; what is said to be done about another image of that name helps, and then ours goes along."""
    origin, destination = (pods.lab.hosts[name] for name in HOSTS)
    destination.exec(["podman", "tag", IMAGE, "other"])
    pods.run(DESTINATION, NAME, NUMBER, REDIS)
    refused(pods, "container-taken", "address-taken")
    destination.exec(["podman", "rm", "-f", "-t", "0", NAME])
    destination.exec(["podman", "rmi", "-f", IMAGE, "other"])
    file = f"/etc/containers/networks/{NETWORK}.json"
    destination.exec(["mv", file, "/root/network.json"])
    try:
        destination.exec(["sh", "-c", f"tar -c -C /etc hostname | podman import - {IMAGE}"])
        found = refused(pods, "image-differs", "no-network")
    finally:
        destination.exec(["mv", "/root/network.json", file])
    # The bridges have seen its hardware address there last, until ours says something.
    pods.inside(ORIGIN, NAME, "sh", "-c", f"redis-cli -h {PEER} ping; exit 0")
    remedy = next(one["remedy"] for one in found.report["reasons"] if one["code"] == "image-differs")
    destination.exec(remedy.partition(": ")[2].split())
    with clients(pods.lab, ADDRESS) as asking:
        moved = run_migrate(origin, "--container", f"{NAME}@podman", DESTINATION)
        assert moved.status == 0, moved.report
        assert served(asking, asked(asking))
    asked_for = ["podman", "image", "inspect", "--format", "{{.Id}}", IMAGE]
    assert origin.exec(asked_for).stdout == destination.exec(asked_for).stdout
    assert any("is sent along" in one for one in moved.report["notes"])


@pytest.mark.parametrize("party", ["migrate --container", "[m]igrate-agent", "podman load"])
def test_who_dies_while_the_image_is_sent(pods: Containers, party: str) -> None:
    """Nothing has been begun there, and nothing of it stays."""
    origin, destination = (pods.lab.hosts[name] for name in HOSTS)
    destination.exec(["podman", "rmi", "-f", IMAGE])
    move = origin.popen(["migrate", "--container", NAME, DESTINATION], stdout=PIPE, stderr=PIPE, text=True)
    try:
        stopped = ["pkill", "-STOP", "-f", "^[^ ]*podman load"]
        loads = lambda: destination.exec(stopped, check=False).returncode == 0  # noqa: E731
        eventually(loads, "podman loads", within_s=60)
        kill(origin if party.startswith("migrate") else destination, party)
        destination.exec(["pkill", "-CONT", "-f", "^[^ ]*podman load"], check=False)
        said, _ = move.communicate(timeout=60)
    finally:
        move.kill()
    assert party.startswith("migrate") or "UNTOUCHED" in said, said
    script = "pgrep -fl '^[^ ]*podman load'; podman images --quiet"
    here = ["sh", "-c", f"{script}; ls -d /var/tmp/podman* 2>/dev/null; exit 0"]
    eventually(lambda: not destination.exec(here).stdout, lambda: destination.exec(here).stdout)
    assert pods.names(ORIGIN) == [NAME] and nothing_left(pods, DESTINATION)
    moved = run_migrate(origin, "--container", NAME, DESTINATION)
    assert moved.status == 0 and pods.names(DESTINATION) == [NAME], moved.report


def test_an_image_that_is_there_by_another_name_alone(pods: Containers) -> None:
    """Podman would ask a registry for one of that name."""
    destination = pods.lab.hosts[DESTINATION]
    destination.exec(["podman", "tag", IMAGE, "other"])
    destination.exec(["podman", "untag", IMAGE, f"{IMAGE}:latest"])
    moved = run_migrate(pods.lab.hosts[ORIGIN], "--container", NAME, DESTINATION)
    assert moved.status == 0, moved.report
    assert pods.names(DESTINATION) == [NAME]


def test_a_runtime_that_fails_before_it_asks_criu(pods: Containers) -> None:
    """Nothing of podman's network is left there, nor does what keeps new interfaces mute stay."""
    destination = pods.lab.hosts[DESTINATION]
    runc = destination.exec(["sh", "-c", "command -v runc"]).stdout.strip()
    failing = '#!/bin/sh\ncase "$*" in *restore*) echo no way >&2; exit 1;; esac\nexec /root/runc "$@"\n'
    Path(f"{destination.root}/root/failing").write_text(failing)
    script = f"touch /root/runc; mount --bind {runc} /root/runc; chmod +x /root/failing"
    destination.exec(["sh", "-c", f"{script}; mount --bind /root/failing {runc}"])
    try:
        ran = run_migrate(pods.lab.hosts[ORIGIN], "--container", NAME, DESTINATION)
    finally:
        destination.exec(["umount", runc, "/root/runc"])
    assert ran.status != 0, ran.report
    assert "podman ended without asking CRIU" in ran.report["error"]["message"], ran.report
    assert pods.names(ORIGIN) == [NAME] and nothing_left(pods, DESTINATION)
    moved = run_migrate(pods.lab.hosts[ORIGIN], "--container", NAME, DESTINATION)
    assert moved.status == 0, moved.report


def test_no_space_there(pods: Containers) -> None:
    """It has written more than there is room for: that is found out while it runs."""
    destination = pods.lab.hosts[DESTINATION]
    pods.lab.hosts[ORIGIN].exec(
        ["sh", "-c", f"head -c 64M /dev/urandom > $(podman mount {NAME})/tmp/much; podman umount {NAME}"]
    )
    destination.exec(["mount", "-o", "remount,size=24m", "/var/lib/containers"])
    try:
        with clients(pods.lab, ADDRESS) as asking:
            ran = run_migrate(pods.lab.hosts[ORIGIN], "--container", NAME, DESTINATION)
            assert ran.status == 3 and ran.report["outcome"] == "UNTOUCHED", ran.report
            assert "No space left" in ran.report["error"]["message"]
            assert served(asking, asked(asking))
    finally:
        destination.exec(["mount", "-o", "remount,size=4g", "/var/lib/containers"])
    assert pods.names(ORIGIN) == [NAME] and nothing_left(pods, DESTINATION)


def test_what_does_not_go_along_is_refused(built: Containers) -> None:
    """All reasons at once."""
    options = ["--volume", "data:/data", "--publish", "8080:80", "--device", "/dev/null:/dev/other"]
    options += ["--tmpfs", "/scratch", "--secret", "hidden,type=env,target=KEY"]
    secret = "podman secret rm hidden; echo key | podman secret create hidden -"
    built.lab.hosts[ORIGIN].exec(["sh", "-c", secret])
    try:
        built.run(ORIGIN, "laden", 72, REDIS, *options)
        ran = run_migrate(built.lab.hosts[ORIGIN], "--container", "laden", DESTINATION)
        assert ran.status == 3, ran.report
        wanted = {"container-volumes", "container-ports", "container-devices", "container-secrets"}
        assert wanted <= {code for code, where in ran.codes if where == ORIGIN}, ran.codes
        ran.must_say(ORIGIN, "data on /data", "/scratch")
        ran.must_say(ORIGIN, "hidden as KEY")
    finally:
        built.remove_all()
