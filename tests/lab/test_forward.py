"""``--switch forward``: a pool of connections to redis from the origin's own address goes on from the destination.

The judges are redis, which knows each connection by its two ends, a capture at its host, ``nft`` and ``ip``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import pytest
from harness import left
from harness.captures import Capture
from harness.hosts import MOVERS, spawn
from harness.migrate import Held, Ran, run_migrate
from harness.pcap import Packet
from harness.reset import reset
from harness.tcp_rules import resets
from harness.wait import eventually
from harness.workloads import WORKLOADS

from migrate.lab import Lab, topology

CONNECTIONS = 10
OWN = {name: one.ipv4 for name, one in topology.addresses().items()}
FORWARD = ("--switch", "forward")
SETTINGS = [f"/proc/sys/net/ipv4/{name}" for name in ("ip_local_reserved_ports", "ip_nonlocal_bind")]
SERVER = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/"]


class Pool:
    """The program on the origin, and redis on the peer, which it reaches at *address*.

    :param socket: what it puts before that: ``::ffff:``, and its sockets are IPv6 ones.
    """

    def __init__(self, lab: Lab, address: str, socket: str = "") -> None:
        self.lab, self.address = lab, address
        self.interface = "eth1" if address == OWN["neighbour"] else "eth0"
        self.origin, self.destination, self.peer = (lab.hosts[name] for name in (*MOVERS, "peer"))
        self.before = {name: left.View(lab.hosts[name]) for name in MOVERS}
        spawn(self.peer, SERVER)
        eventually(lambda: self.redis("ping") == "PONG", "redis answers")
        command = [sys.executable, str(WORKLOADS / "pool.py"), socket + address, str(CONNECTIONS)]
        self.pid = spawn(self.origin, command)
        self.assert_goes_on()
        self.ends = self.clients()
        assert {one.partition(":")[0] for one in self.ends} == {OWN["origin"]}

    def redis(self, *words: str) -> str:
        return self.peer.exec(["redis-cli", *words], check=False).stdout.strip()

    def clients(self) -> set[str]:
        """The other ends of its connections, as redis sees them."""
        found = (
            dict(w.split("=", 1) for w in one.split()) for one in self.redis("client", "list").splitlines()
        )
        return {one["addr"] for one in found if not one["addr"].startswith("127.")}

    def counts(self) -> list[int]:
        """Of each connection; redis says nothing of one that has not begun."""
        found = self.redis("mget", *(f"counter-{one}" for one in range(CONNECTIONS))).splitlines()
        return [int(one or 0) for one in [*found, *[""] * (CONNECTIONS - len(found))]]

    def assert_goes_on(self) -> None:
        """Each of them counts on."""
        before = self.counts()
        eventually(
            lambda: all(now > then + 20 for now, then in zip(self.counts(), before, strict=True)),
            "all of them count",
        )

    def move(self, *options: str) -> Ran:
        """To the destination, under load; there must be no sign of it at the peer but silence."""
        with Capture(self.peer, self.interface, "tcp port 6379") as capture:
            moved = run_migrate(self.origin, *FORWARD, *options, self.pid, "destination")
            assert (moved.status, moved.report["outcome"]) == (0, "MOVED"), moved.said
            self.assert_goes_on()
        assert self.clients() == self.ends
        assert self.resets(capture) == []
        assert "pool.py" in left.processes(self.destination)[moved.report["destination_pid"]]
        assert not [words for words in left.processes(self.origin).values() if "pool.py" in words]
        return moved

    def resets(self, capture: Capture) -> list[Packet]:
        """Of its connections: what a pool of a test before has left open, redis resets."""
        ports = {int(one.rpartition(":")[2]) for one in self.ends}
        return [one for one in resets(capture.packets()) if {one.sender[1], one.receiver[1]} & ports]

    def forwards(self, name: str, *words: str) -> str:
        """What ``migrate --forwards`` says there."""
        done = self.lab.hosts[name].exec(["migrate", "--forwards", *words])
        return done.stdout + done.stderr

    def end_forwards(self) -> None:
        """Those of both hosts, whoever still needs them."""
        for name in MOVERS:
            for id_ in re.findall("^[0-9a-f]{12}", self.forwards(name), re.MULTILINE):
                self.forwards(name, "--end", id_)

    def assert_as_before(self) -> None:
        """Nothing of it is in any table of either host."""
        for name in MOVERS:
            host, was = self.lab.hosts[name], self.before[name]
            eventually(lambda host=host: left.helpers(host) == [], f"the helpers on {name} have ended")
            now = left.View(host)
            assert (now.network, now.addresses, now.files) == (was.network, was.addresses, was.files), name
            assert host.exec(["cat", *SETTINGS]).stdout.split() == ["0"], name

    def assert_stayed(self) -> None:
        """It goes on at the origin, by the same connections, as if nothing had been."""
        self.assert_goes_on()
        assert self.clients() == self.ends
        assert "pool.py" in left.processes(self.origin)[self.pid]
        assert not [words for words in left.processes(self.destination).values() if "pool.py" in words]
        self.assert_as_before()


@pytest.fixture
def pool(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Pool]:
    reset(lab)
    made = Pool(lab, *getattr(request, "param", [OWN["neighbour"]]))
    yield made
    made.end_forwards()
    reset(lab)


@pytest.mark.parametrize(
    "pool",
    [[OWN["neighbour"]], [OWN["peer"]], [OWN["peer"], "::ffff:"]],
    ids=["on the segment", "behind the gateway", "of IPv6 sockets"],
    indirect=True,
)
def test_a_pool_of_connections(pool: Pool) -> None:
    """It goes on from the destination, which has not got the address, and opens others from its own."""
    pool.move()
    assert OWN["origin"] not in left.addresses(pool.destination)
    assert pool.redis("set", "more", "1") == "OK"
    eventually(lambda: len(pool.clients()) == CONNECTIONS + 1, "one connection more")
    assert {one.partition(":")[0] for one in pool.clients() - pool.ends} == {OWN["destination"]}
    pool.assert_goes_on()
    pool.end_forwards()
    pool.assert_as_before()


@pytest.mark.parametrize("pool", [[OWN["peer"]]], ids=["behind the gateway"], indirect=True)
def test_a_path_that_gets_narrower(pool: Pool) -> None:
    """What the gateway says to the address of the origin reaches the sockets: they send smaller packets."""
    pool.move()
    gateway = pool.lab.hosts["gateway"]
    gateway.exec(["ip", "link", "set", "eth1", "mtu", "1300"])
    try:
        assert pool.redis("set", "large", "1") == "OK"
        eventually(lambda: pool.redis("exists", "large") == "0", "all of them have sent much")
        assert pool.redis("strlen", "large-counter-3") == "1000000"
        pool.assert_goes_on()
        assert pool.clients() == pool.ends
        found = pool.destination.exec(["ss", "-Htin", "state", "established", "dport = :6379"]).stdout
        assert found.count("pmtu:1300") == CONNECTIONS
    finally:
        gateway.exec(["ip", "link", "set", "eth1", "mtu", "1500"])


def test_forwards_are_listed_and_ended(pool: Pool) -> None:
    """By the hosts' kernels alone: no process of ours is left on either."""
    pool.move()
    here, there = (pool.forwards(name) for name in MOVERS)
    (id_,) = set(re.findall("[0-9a-f]{12}", here + there))
    assert f"10 connections of this host are forwarded to {OWN['destination']}" in here and "KiB back" in here
    assert f"10 connections of {OWN['origin']} are forwarded to this host" in there
    for end in pool.ends:
        assert f"    {end} - {pool.address}:6379\n" in here and end in there
    for name in MOVERS:
        assert left.helpers(pool.lab.hosts[name]) == []
    said = pool.forwards("origin", "--end", id_)
    assert "10 connections cannot go on: their peers are reset" in said and OWN["destination"] in said
    eventually(lambda: "cannot go on" in pool.forwards("destination", "--end", id_), "it ends there too")
    assert pool.forwards("origin") == "no connections are forwarded\n"
    pool.assert_as_before()


def test_when_the_program_ends(pool: Pool) -> None:
    """The end of each connection was seen: the kernels forget them soon after."""
    pool.move()
    pool.destination.exec(["pkill", "-9", "-f", "pool.py"])
    eventually(lambda: pool.clients() == set(), "redis has heard of it")
    table = pool.origin.exec(["nft", "list", "tables", "netdev"]).stdout.split()[-1]
    ended = pool.origin.exec(["nft", "list", "set", "netdev", table, "ended"]).stdout
    assert ended.count("expires 9m") == CONNECTIONS
    flows = pool.origin.exec(["nft", "list", "set", "netdev", table, "flows"]).stdout
    assert flows.count("expires 9m") == CONNECTIONS


@pytest.mark.parametrize(
    "victims", [["driver"], ["agent"], ["driver", "agent"], ["driver", "guardian origin"]], ids=" and ".join
)
def test_killed_when_switched(pool: Pool, victims: list[str]) -> None:
    """Whoever undoes it, the connections go on at the origin."""
    with Capture(pool.peer, pool.interface, "tcp port 6379") as capture:
        held = Held(pool.origin, "SWITCHED", *FORWARD, "--max-gap", "60", pool.pid, "destination")
        for victim in victims:
            what = victim.partition(" ")[0]
            host = pool.destination if what == "agent" else pool.origin
            words = {"agent": "migrate-agent", "guardian": "migrate.recovery.guardian"}
            found = host.exec(["pgrep", "-of", words.get(what, "^$")], check=False).stdout.split()
            host.exec(["kill", "-9", str(held.driver) if what == "driver" else found[0]])
        if "driver" in victims:
            held.killed()
        else:
            held.go()
            assert held.end().report["outcome"] == "ROLLED_BACK"
        if "guardian origin" in victims:
            assert run_migrate(pool.origin, "--recover").status == 0
        pool.assert_stayed()
    assert pool.resets(capture) == []


def test_a_switch_that_fails(pool: Pool) -> None:
    """The origin finds no way to the peer any more: rolled back."""
    with Capture(pool.peer, pool.interface, "tcp port 6379") as capture:
        held = Held(pool.origin, "RESTORED", *FORWARD, "--max-gap", "60", pool.pid, "destination")
        pool.origin.exec(["ip", "route", "add", "blackhole", pool.address])
        held.go()
        ran = held.end()
        pool.origin.exec(["ip", "route", "del", "blackhole", pool.address])
        assert (ran.status, ran.report["outcome"]) == (4, "ROLLED_BACK"), ran.said
        ran.must_say("origin", f"cannot find the way to {pool.address}")
        pool.assert_stayed()
    assert pool.resets(capture) == []


def test_a_destination_that_cannot_prepare(pool: Pool) -> None:
    """Somebody gives it the origin's address: noticed before anything is done there."""
    held = Held(pool.origin, "FROZEN", *FORWARD, "--max-gap", "60", pool.pid, "destination")
    address = ["address", "add", f"{OWN['origin']}/32", "dev", "lo", "scope", "host"]
    throw = ["route", "add", "throw", f"{OWN['origin']}/32", "table", "local"]
    pool.destination.exec(["ip", *throw])
    pool.destination.exec(["ip", *address])
    held.go()
    ran = held.end()
    for words in (address, throw):
        pool.destination.exec(["ip", words[0], "del", *words[2:]])
    assert ran.status == 4, ran.said
    ran.must_say("destination", f"{OWN['origin']} was added to this host since the check")
    pool.assert_stayed()


def test_what_cannot_be_is_refused(pool: Pool) -> None:
    """Before anything is frozen, with what would help."""
    checked = run_migrate(pool.origin, "--check", *FORWARD, pool.pid, "destination")
    assert checked.status == 0 and "has to stay up" in "".join(checked.said)
    pool.origin.exec(["ip", "route", "add", "blackhole", pool.address])
    ran = run_migrate(pool.origin, *FORWARD, pool.pid, "destination")
    pool.origin.exec(["ip", "route", "del", "blackhole", pool.address])
    assert ran.status == 3 and ran.codes == {("switch-impossible", "origin")}
    plain = run_migrate(pool.origin, "--check", pool.pid, "destination")
    assert plain.status == 3 and plain.codes == {("address-of-host", "origin")}
    plain.must_say("origin", "--switch forward")
    pool.assert_stayed()
    pool.move()
    back = run_migrate(pool.destination, *FORWARD, pool.pid, "origin")
    assert back.status == 3 and ("address-missing", "origin") in back.codes
    back.must_say("origin", "cannot move on")
