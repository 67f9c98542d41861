"""A pool of connections to redis from the origin's own address, alone or behind a proxy, that moves with them."""

from __future__ import annotations

import re
import sys

from harness import left
from harness.captures import Capture
from harness.hosts import MOVERS, listeners, spawn, ss
from harness.migrate import Held, Ran, run_migrate
from harness.pcap import Packet
from harness.tcp_rules import resets
from harness.wait import eventually
from harness.workloads import WORKLOADS

from migrate.lab import Host, Lab, topology

CONNECTIONS = 10
OWN = {name: one.ipv4 for name, one in topology.addresses().items()}
SETTINGS = [f"/proc/sys/net/ipv4/{name}" for name in ("ip_local_reserved_ports", "ip_nonlocal_bind")]
SERVER = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/"]


_HAPROXY = """
global
    nbthread 1
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen redis
    bind {service}:6379
    server redis {server}:6379
"""


class Pool:
    """The program on the origin, and redis on the peer, which it reaches at *address*.

    :param socket: what it puts before that: ``::ffff:``, and its sockets are IPv6 ones.
    :cvar program: what moves. :cvar words: with which it is moved.
    """

    program = "pool.py"
    words: tuple[str, ...] = ("--switch", "forward")

    def __init__(self, lab: Lab, address: str, socket: str = "") -> None:
        self.lab, self.address = lab, address
        self.interface = "eth1" if address == OWN["neighbour"] else "eth0"
        self.origin, self.destination, self.peer = (lab.hosts[name] for name in (*MOVERS, "peer"))
        self.before = {name: left.View(lab.hosts[name]) for name in MOVERS}
        spawn(self.peer, SERVER)
        eventually(lambda: self.redis("ping") == "PONG", "redis answers")
        self.pid = self.start(socket + address)
        self.assert_goes_on()
        self.ends = self.clients()
        assert {one.partition(":")[0] for one in self.ends} == {OWN["origin"]}

    def start(self, address: str) -> int:
        """The program, on the origin; its PID."""
        return spawn(self.origin, pool(address))

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
            moved = run_migrate(self.origin, *(options or self.words), self.pid, "destination")
            assert (moved.status, moved.report["outcome"]) == (0, "MOVED"), moved.said
            self.assert_goes_on()
        assert self.clients() == self.ends
        assert self.resets(capture) == []
        assert self.program in left.processes(self.destination)[moved.report["destination_pid"]]
        assert not [words for words in left.processes(self.origin).values() if self.program in words]
        return moved

    def strike(self, victims: list[str]) -> None:
        """Kill *victims* when it is switched, have it settled by who is left, or by --recover."""
        held = Held(self.origin, "SWITCHED", *self.words, "--max-gap", "60", self.pid, "destination")
        for victim in victims:
            what = victim.partition(" ")[0]
            host = self.destination if what == "agent" else self.origin
            words = {"agent": "migrate-agent", "guardian": "migrate.recovery.guardian"}
            found = host.exec(["pgrep", "-of", words.get(what, "^$")], check=False).stdout.split()
            host.exec(["kill", "-9", str(held.driver) if what == "driver" else found[0]])
        if "driver" in victims:
            held.killed()
        else:
            held.go()
            assert held.end().report["outcome"] == "ROLLED_BACK"
        if "guardian origin" in victims:
            assert run_migrate(self.origin, "--recover").status == 0

    def move_home(self, pid: int) -> None:
        """From the destination to the origin, where the connections are ordinary ones again."""
        with Capture(self.peer, self.interface, "tcp port 6379") as capture:
            ran = run_migrate(self.destination, *self.words, pid, "origin")
            assert (ran.status, ran.report["outcome"]) == (0, "MOVED"), ran.said
            self.assert_goes_on()
        assert self.clients() == self.ends
        assert self.resets(capture) == []
        assert self.program in left.processes(self.origin)[ran.report["destination_pid"]]
        for name in MOVERS:
            assert self.forwards(name) == "no connections are forwarded\n"
        self.assert_as_before()

    def resets(self, capture: Capture) -> list[Packet]:
        """Of its connections: what a pool of a test before has left open, redis resets."""
        ports = self.ports()
        return [one for one in resets(capture.packets()) if {one.sender[1], one.receiver[1]} & ports]

    def ports(self) -> set[int]:
        """Those of the connections that nobody may reset."""
        return {int(one.rpartition(":")[2]) for one in self.ends}

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
            eventually(lambda host=host: _helpers(host) == [], f"the helpers on {name} have ended")
            now = left.View(host)
            assert (now.network, now.addresses, now.files) == (was.network, was.addresses, was.files), name
            assert host.exec(["cat", *SETTINGS]).stdout.split() == ["0"], name

    def assert_stayed(self) -> None:
        """It goes on at the origin, by the same connections, as if nothing had been."""
        self.assert_goes_on()
        assert self.clients() == self.ends
        assert self.program in left.processes(self.origin)[self.pid]
        assert not [words for words in left.processes(self.destination).values() if self.program in words]
        self.assert_as_before()


class Proxy(Pool):
    """haproxy on the origin between a pool of the peer's, which has connected to the service address, and redis."""

    program = "haproxy"
    words = ("--switch", "auto")
    service = topology.SERVICE.ipv4

    def start(self, address: str) -> int:
        """haproxy at the origin, and the pool on the peer."""
        there = self.origin.root / "srv/haproxy.cfg"
        there.write_text(_HAPROXY.format(service=self.service, server=address))
        (self.destination.root / "srv/haproxy.cfg").write_bytes(there.read_bytes())
        pid = spawn(self.origin, ["haproxy", "-db", "-f", "/srv/haproxy.cfg"])
        eventually(lambda: listeners(self.origin, 6379) == 1, "haproxy listens")
        self.client = spawn(self.peer, pool(self.service))
        return pid

    def assert_goes_on(self) -> None:
        """Each of its connections counts on; the pool ends where an answer is wrong."""
        super().assert_goes_on()
        assert self.client in left.processes(self.peer)

    def ports(self) -> set[int]:
        """Its own to redis, and those of its clients."""
        found = ss(self.peer, "-tn", "dst", self.service)
        return super().ports() | {int(one["local"].rpartition(":")[2]) for one in found}

    def where(self) -> str:
        """Which host has the service address."""
        (name,) = (name for name in MOVERS if self.service in left.addresses(self.lab.hosts[name]))
        return name


def _helpers(host: Host) -> list[str]:
    """Processes of ours, but guardians that have settled all and go on announcing an address for a while."""
    view = left.View(host)
    working = [one.words for one in view.processes.values() if not view.reminds(one)]
    return [words for words in left.helpers(host) if words in working]


def pool(address: str) -> list[str]:
    """The program that connects and counts."""
    return [sys.executable, str(WORKLOADS / "pool.py"), address, str(CONNECTIONS)]
