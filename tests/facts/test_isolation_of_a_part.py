"""Of connections that were isolated together each is let through, or held on to, by itself."""

from __future__ import annotations

import random
import socket
import subprocess
from collections.abc import Callable

import pytest
from netns import Hosts, Namespace, eventually
from passing import assert_no_reset
from traces import NOTHING, goes_through, is_held, rules

import tcpcp
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import Ici


def arrives(peer: socket.socket) -> None:
    """What *peer* has sent is acknowledged; if it was held, by its timer for sending again."""
    eventually(lambda: not tcp_repair.get_outq(peer), "acknowledged")


@pytest.mark.parametrize("order", ((0, 1), (1, 0)), ids=("release first", "other first"))
@pytest.mark.parametrize("run", ("resume", "activate"))
def test_released_and_resumed(hosts: Hosts, run: str, order: tuple[int, int]) -> None:
    """The destination took one and refused the other: late segments for the one draw no reset."""
    (gone, its_peer), (stays, peer) = hosts.connect(), hosts.connect()
    with hosts.here.entered():
        tcpcp.get_many([gone, stays])
        steps: list[Callable[[], None]] = [lambda: tcpcp.release(gone), lambda: getattr(tcpcp, run)(stays)]
        for number in order:
            steps[number]()
    assert is_held(its_peer)
    peer.sendall(b"goes on")
    assert stays.recv(100) == b"goes on"
    assert_no_reset(hosts)


def test_failed_create_leaves_the_others_held(hosts: Hosts) -> None:
    """What create() has isolated goes with it; what was passed on before is held on to."""
    (one, peer), (two, _) = hosts.connect(), hosts.connect()
    with hosts.here.entered():
        icis = tcpcp.get_many([one, two])
        tcpcp.release_many([one, two])
        made = tcpcp.create(icis[1])
        with pytest.raises(tcpcp.TcpcpError):
            tcpcp.create_many(icis)
        tcpcp.activate(made)
    assert is_held(peer)
    assert_no_reset(hosts)


class Model:
    """Connections, what was done with each last, and whether that is so."""

    def __init__(self, hosts: Hosts, count: int) -> None:
        self.hosts = hosts
        pairs = [hosts.connect() for _ in range(count)]
        self.socks: dict[int, socket.socket] = {i: sock for i, (sock, _) in enumerate(pairs)}
        self.peers = [peer for _, peer in pairs]
        self.icis: dict[int, Ici] = {}
        self.state = ["runs"] * count

    def some(self, chance: random.Random, state: str) -> list[int]:
        those = [i for i, one in enumerate(self.state) if one == state]
        return chance.sample(those, chance.randint(0, len(those)))

    def step(self, chance: random.Random) -> None:
        what = chance.choice(("get", "get", "release", "resume", "activate", "create", "activate created"))
        states = {"get": "runs", "create": "released", "activate created": "created"}
        chosen = self.some(chance, states.get(what, "got"))
        socks = [self.socks[i] for i in chosen] if what != "create" else []
        if what == "get":
            self.icis.update(zip(chosen, tcpcp.get_many(socks), strict=True))
        elif what == "create":
            made = tcpcp.create_many([self.icis[i] for i in chosen])
            self.socks.update(zip(chosen, made, strict=True))
        else:
            getattr(tcpcp, f"{what.split()[0]}_many")(socks)
        after = {"get": "got", "release": "released", "create": "created"}.get(what, "runs")
        for i in chosen:
            self.state[i] = after

    def check(self) -> None:
        for i, peer in enumerate(self.peers):
            if self.state[i] == "runs":
                peer.send(b"x")
                arrives(peer)
        held = [i for i, one in enumerate(self.state) if one != "runs"]
        if held:
            assert all(tcp_repair.get_outq(self.peers[i]) for i in held) or all(
                is_held(self.peers[i], 0.02) for i in held
            ), self.state
        assert rules(self.hosts.here).tables <= 1


@pytest.mark.parametrize("seed", range(4))
def test_in_any_order(hosts: Hosts, seed: int) -> None:
    """After each of many random calls exactly those are held that should be; in the end nothing is left."""
    chance = random.Random(seed)
    model = Model(hosts, 6)
    with hosts.here.entered():
        for _ in range(15):
            model.step(chance)
            model.check()
        tcpcp.resume_many([model.socks[i] for i, one in enumerate(model.state) if one == "got"])
        gone = [i for i, one in enumerate(model.state) if one == "released"]
        made = tcpcp.create_many([model.icis[i] for i in gone])
        tcpcp.activate_many(made + [model.socks[i] for i, one in enumerate(model.state) if one == "created"])
    for peer in model.peers:
        peer.send(b"x")
        arrives(peer)
    assert rules(hosts.here) == NOTHING
    assert_no_reset(hosts)


def test_one_by_one_nothing_grows(hosts: Hosts) -> None:
    """300 connections passed one by one: one table, its rules, an element for each; whatever the number."""
    pairs = [hosts.connect() for _ in range(300)]
    counts = []
    with hosts.here.entered():
        for number, (sock, _) in enumerate(pairs, 1):
            ici = tcpcp.get(sock)
            tcpcp.release(sock)
            if number in (3, 300):
                counts.append(rules(hosts.here))
                made = tcpcp.create(ici)
                tcpcp.activate(made)
                made.sendall(b"1")
                assert pairs[number - 1][1].recv(1) == b"1"
                counts.append(rules(hosts.here))
    few, many = counts[0], counts[2]
    assert few.tables == many.tables == 1
    assert few[:3] == many[:3]
    # A connection may be an element of several sets.
    assert many.elements <= few.elements / 3 * 300
    assert counts[1].elements <= few.elements * 2
    assert_no_reset(hosts)


def test_resume_leaves_nothing(hosts: Hosts) -> None:
    sock, _ = hosts.connect()
    with hosts.here.entered():
        for _ in range(3):
            tcpcp.get(sock)
            assert rules(hosts.here).tables == 1
            tcpcp.resume(sock)
            assert rules(hosts.here) == NOTHING


def test_flush_ruleset(hosts: Hosts) -> None:
    """What a firewall's reload does does not end the isolation, nor the calls after it."""
    (gone, its_peer), (stays, peer) = hosts.connect(), hosts.connect()
    with hosts.here.entered():
        tcpcp.get_many([gone, stays])
        subprocess.run(["nft", "flush ruleset"], check=True)
        assert is_held(its_peer)
        assert is_held(peer)
        tcpcp.resume(stays)
        tcpcp.release(gone)
    assert not tcp_repair.get_repair(stays)
    arrives(peer)
    assert tcp_repair.get_outq(its_peer)
    assert_no_reset(hosts)


def test_the_same_ends_in_two_namespaces(hosts: Hosts) -> None:
    """A process that serves several: what is resumed in one is let through there."""
    other = Hosts()
    sock, peer = hosts.connect()
    with hosts.here.entered():
        ici = tcpcp.get(sock)
    with other.here.entered():
        made = tcpcp.create(ici)
        tcpcp.activate(made)
        assert rules(other.here) == NOTHING
    assert is_held(peer)
    with hosts.here.entered():
        tcpcp.resume(sock)
    arrives(peer)
    assert rules(hosts.here) == NOTHING
    other.close()


def test_from_another_namespace(hosts: Hosts) -> None:
    """get() would make the filter where the connection is not: refused, and the socket is as before."""
    sock, peer = hosts.connect()
    elsewhere = Namespace()
    with elsewhere.entered():
        with pytest.raises(tcpcp.OtherNamespace):
            tcpcp.get(sock)
        assert rules(elsewhere) == NOTHING
    assert not tcp_repair.get_repair(sock)
    assert goes_through(peer)
    elsewhere.close()


@pytest.mark.parametrize("call", ("activate", "resume", "release", "renew"))
def test_the_thread_is_elsewhere_afterwards(hosts: Hosts, call: str) -> None:
    """What was got here is let through, or held on to, here: or else refused, with nothing changed."""
    sock, peer = hosts.connect()
    with hosts.here.entered():
        ici = tcpcp.get(sock)
    elsewhere = Namespace()
    with elsewhere.entered():
        try:
            getattr(tcpcp, call)(sock)
        except tcpcp.OtherNamespace:
            assert is_held(peer)
            return
        assert rules(elsewhere) == NOTHING
    if call in ("release", "renew"):
        assert is_held(peer)
    if call == "renew":
        with hosts.here.entered():
            tcpcp.resume(sock)
    if call == "release":
        with hosts.here.entered():
            made = tcpcp.create(ici)
            tcpcp.activate(made)
    peer.send(b"x")
    arrives(peer)
    assert rules(hosts.here) == NOTHING
    assert_no_reset(hosts)
    elsewhere.close()
