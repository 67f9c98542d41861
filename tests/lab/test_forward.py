"""``--switch forward``: a pool of connections to redis from the origin's own address goes on from the destination.

The judges are redis, which knows each connection by its two ends, a capture at its host, ``nft`` and ``ip``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from forwarding import CONNECTIONS, OWN, Pool
from harness import left
from harness.captures import Capture
from harness.hosts import MOVERS
from harness.migrate import Held, run_migrate
from harness.reset import reset
from harness.wait import eventually

from migrate.lab import Lab

FORWARD = Pool.words


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
    assert f"10 connections of this host are forwarded to {OWN['destination']}" in here
    assert re.search(r"\d [KM]iB back", here)
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
        pool.strike(victims)
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
    plain.must_say("origin", "--switch auto")
    pool.assert_stayed()
