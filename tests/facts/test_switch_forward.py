"""A connection keeps the origin's own address and runs on the destination; when it has ended, nothing is left."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from gap_hosts import SERVICE, GapHosts
from netns import eventually, ip

import tcpcp
from migrate import switch
from migrate.errors import SwitchError
from migrate.switch import Address, announce, forward, together
from migrate.switch.forward import listed, reserved, rules
from migrate.testing import switches
from tcpcp.endpoint.isolation import Flow
from tcpcp.record.ici import Endpoint

ORIGIN, DESTINATION, PEER = "10.9.0.1", "10.9.0.2", "10.9.0.3"
ADDRESS = Address(ORIGIN, 24, "eth0")
PORT = 7000
SETTINGS = ("ip_local_reserved_ports", "ip_nonlocal_bind")


def state() -> object:
    """This host's addresses, rules, routes and tables, and the settings that are changed."""
    tables = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout
    settings = [(Path("/proc/thread-self/root/proc/sys/net/ipv4") / name).read_text() for name in SETTINGS]
    mine = [line for line in tables.splitlines() if "tcpcp" not in line]
    return ip("-br -4 address"), ip("rule"), ip("-4 route show table all"), mine, settings


def bindable() -> bool:
    with socket.socket() as sock:
        try:
            sock.bind((ORIGIN, 0))
        except OSError:
            return False
    return True


@pytest.fixture
def case(gap_hosts: GapHosts) -> switches.Case:
    def on(role: str) -> AbstractContextManager[object]:
        announce.open_sender.cache_clear()  # by name of the device, which is the same on both hosts
        return {"origin": gap_hosts.origin, "destination": gap_hosts.destination}[role].entered()

    ends = (Endpoint(_ip(ORIGIN), 40000), Endpoint(_ip(PEER), PORT))
    return switches.Case(f"forward:{DESTINATION}", [ADDRESS], on, state, bindable, flows=[Flow(*ends)])


def _ip(text: str):  # type: ignore[no-untyped-def]
    import ipaddress

    return ipaddress.ip_address(text)


@pytest.mark.parametrize("check", switches.CHECKS, ids=lambda check: check.__name__)
def test_it_is_one(case: switches.Case, check: Callable[[switches.Case], None]) -> None:
    check(case)


@pytest.fixture(params=["address", "none"])
def both(case: switches.Case, gap_hosts: GapHosts, request: pytest.FixtureRequest) -> Iterator[switches.Case]:
    """A service address, which moves or is on both hosts, and connections from the origin's own."""

    def bound() -> bool:
        with socket.socket() as sock:
            try:
                sock.bind((SERVICE[4], 0))
            except OSError:
                return False
        return bindable()

    addresses = [dataclasses.replace(ADDRESS, stays=True), Address(SERVICE[4], 24, "eth0")]
    with contextlib.ExitStack() as after:
        if request.param == "none":
            with gap_hosts.destination.entered():
                ip(f"addr add {SERVICE[4]}/32 dev lo")
            after.callback(_not_on_lo, gap_hosts)
        kind = f"{case.kind}+{request.param}"
        yield dataclasses.replace(case, kind=kind, addresses=addresses, bindable=bound)


def _not_on_lo(hosts: GapHosts) -> None:
    with hosts.destination.entered():
        ip(f"addr del {SERVICE[4]}/32 dev lo")


@pytest.mark.parametrize("check", switches.CHECKS, ids=lambda check: check.__name__)
def test_with_a_service_address(both: switches.Case, check: Callable[[switches.Case], None]) -> None:
    """Each has its own, and together they are one."""
    check(both)


class Part:
    """One that cannot be undone."""

    def __init__(self) -> None:
        self.asked = 0

    def undo(self) -> None:
        self.asked += 1
        raise OSError("it is stuck")


def test_what_cannot_be_undone_keeps_nothing_else_from_it() -> None:
    parts = [Part(), Part()]
    made = together.Together("forward+address", "origin", "0123456789ab", [], parts)  # type: ignore[arg-type]
    with pytest.raises(SwitchError, match="it is stuck; it is stuck"):
        made.undo()
    assert [one.asked for one in parts] == [1, 1]


@pytest.mark.parametrize("kind", ["forward+forward", "forward:10.0.0.1+forward+none", "forward+auto", "auto"])
def test_what_is_none(kind: str) -> None:
    with pytest.raises(SwitchError):
        switch.make(kind, "destination", "0123456789ab", [])


class Moved:
    """A connection from the origin to the peer, of which the origin's end lives on the destination by now."""

    def __init__(self, hosts: GapHosts) -> None:
        self.hosts = hosts
        with hosts.peer.entered(), socket.create_server((PEER, PORT)) as listening:
            with hosts.origin.entered():
                left = socket.create_connection((PEER, PORT), 5, source_address=(ORIGIN, 0))
            self.peer, _ = listening.accept()
        self.origin = forward.AtOrigin("0123456789ab", [ADDRESS], DESTINATION)
        self.destination = forward.AtDestination("0123456789ab", [ADDRESS])
        flow = Flow(Endpoint(_ip(ORIGIN), left.getsockname()[1]), Endpoint(_ip(PEER), PORT))
        with hosts.origin.entered():
            ici = tcpcp.get(left)
            self.origin.connections([flow])
            self.origin.choose()
        with hosts.destination.entered():
            self.destination.connections([flow])
            self.destination.choose()
            self.destination.prepare()
            self.moved = tcpcp.create(*self.destination.marked([ici]))
        with hosts.origin.entered():
            self.origin.switch()
        with hosts.destination.entered():
            self.destination.switch()
            tcpcp.activate(self.moved)
        with hosts.origin.entered():
            tcpcp.release(left)
        for sock in (self.moved, self.peer):
            sock.settimeout(5)

    def close(self) -> None:
        for sock in (self.moved, self.peer):
            sock.close()
        for host, part in ((self.hosts.origin, self.origin), (self.hosts.destination, self.destination)):
            with host.entered():
                part.undo()

    def speaks(self) -> bool:
        """Both ways."""
        self.moved.sendall(b"a question")
        asked = self.peer.recv(100)
        self.peer.sendall(b"an answer")
        return (asked, self.moved.recv(100)) == (b"a question", b"an answer")


@pytest.fixture
def moved(gap_hosts: GapHosts) -> Iterator[Moved]:
    made = Moved(gap_hosts)
    yield made
    made.close()


def test_it_speaks(moved: Moved) -> None:
    """And neither host's other connections notice."""
    assert moved.speaks()
    for left, right, address in (("origin", "destination", DESTINATION), ("destination", "origin", ORIGIN)):
        with getattr(moved.hosts, right).entered():
            listening = socket.create_server((address, PORT + 1))
        with getattr(moved.hosts, left).entered():
            socket.create_connection((address, PORT + 1), 5).close()
        listening.close()
    with moved.hosts.origin.entered():
        (listed_,) = listed.present()
        assert len(listed_.ends) == 1 and listed_.to == DESTINATION and listed_.there_bytes > 0


def test_somebody_removes_it(moved: Moved) -> None:
    """A host's part is asked of the kernel: it raises, and what is left of it is undone."""
    for host, part, family in (
        ("origin", moved.origin, "netdev"),
        ("destination", moved.destination, "inet"),
    ):
        with getattr(moved.hosts, host).entered():
            part.verify()
            subprocess.run(["nft", "delete", "table", family, rules.name("0123456789ab")], check=True)
            with pytest.raises(SwitchError):
                part.verify()
            part.undo()
            assert listed.present() == []


def test_nothing_is_left_when_it_has_ended(gap_hosts: GapHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels forget it; who looks next removes the rest."""
    monkeypatch.setattr(rules, "ENDED", "1s")
    monkeypatch.setattr(rules, "LIVES", "4s")
    hosts = (gap_hosts.origin, gap_hosts.destination)
    before = []
    for host in hosts:
        with host.entered():
            before.append(state())
    made = Moved(gap_hosts)
    try:
        assert made.speaks()
        made.moved.close()
        made.peer.close()
        for host, was in zip(hosts, before, strict=True):
            with host.entered():
                assert listed.present()
                eventually(lambda: listed.sweep() == ["0123456789ab"], "it was forgotten", 10)
                assert state() == was
    finally:
        made.close()


def test_on_the_way_home_and_back_again(moved: Moved) -> None:
    """The host that forwards takes it, and whoever undoes that has it forwarded as before."""
    ends = moved.moved.getsockname(), moved.peer.getsockname()
    flow = Flow(*(Endpoint(_ip(address), port) for address, port in ends))
    what = "fedcba987654", [Address(ORIGIN, 32, "", True)]
    leaving, taking = forward.AtOrigin(*what), forward.AtDestination(*what)
    with moved.hosts.destination.entered():
        leaving.choose()
        leaving.connections([flow])
        assert leaving.notes() == []
        leaving.switch()
    with moved.hosts.origin.entered():
        before = state()
        taking.choose()
        taking.connections([flow])
        taking.require_free()
        taking.prepare()
        taking.switch()
        taking.verify()
        assert state() == before
        assert _sets(moved).count(f"{ORIGIN} . {ends[0][1]}") == 2
        for _ in range(2):
            switch.from_details(json.loads(json.dumps(taking.details()))).undo()
        assert _sets(moved).count(f"{ORIGIN} . {ends[0][1]}") == 1
    with moved.hosts.destination.entered():
        switch.from_details(json.loads(json.dumps(leaving.details()))).undo()
    assert moved.speaks()
    with moved.hosts.peer.entered(), pytest.raises(SwitchError, match="not forwarded to this host"):
        leaving.connections([flow])


def _sets(moved: Moved) -> str:
    words = ["nft", "list", "table", "netdev", rules.name("0123456789ab")]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def test_its_port_is_nobody_elses(moved: Moved) -> None:
    """The kernel of the origin would give its ends to a new connection: the answers to that would go elsewhere."""
    port = moved.moved.getsockname()[1]
    with moved.hosts.origin.entered():
        assert reserved.missing([port]) == []


def test_two_of_them_are_apart(moved: Moved) -> None:
    """The end of one takes nothing from the other, which has the same address."""
    addresses = "fedcba987654", [ADDRESS]
    others = forward.AtOrigin(*addresses, DESTINATION), forward.AtDestination(*addresses)
    flow = Flow(Endpoint(_ip(ORIGIN), 40001), Endpoint(_ip(PEER), PORT))
    for host, part in zip((moved.hosts.origin, moved.hosts.destination), others, strict=True):
        with host.entered():
            part.connections([flow])
            part.choose()
            part.prepare()
            part.switch()
            assert len(listed.present()) == 2
    assert moved.speaks()
    for host in (moved.hosts.origin, moved.hosts.destination):
        with host.entered():
            listed.end(next(one for one in listed.present() if one.id == "fedcba987654"))
            assert len(listed.present()) == 1
    assert moved.speaks()


def test_ports_that_were_reserved_before(gap_hosts: GapHosts) -> None:
    """By whoever: they stay so."""
    with gap_hosts.origin.entered():
        reserved.add([8080, 8081, 8082, 9000])
        assert reserved.missing([8081, 9001]) == [9001]
        reserved.add([9001])
        reserved.remove([9001, 9002])
        setting = Path("/proc/thread-self/root/proc/sys/net/ipv4/ip_local_reserved_ports")
        assert setting.read_text().strip() == "8080-8082,9000"
        reserved.remove([8080, 8081, 8082, 9000])


def test_a_destination_behind_a_gateway_is_refused(gap_hosts: GapHosts) -> None:
    with gap_hosts.origin.entered():
        ip(f"route add 10.99.0.0/24 via {DESTINATION}")
        try:
            with pytest.raises(SwitchError, match="not on a network that both hosts are on"):
                forward.AtOrigin("0123456789ab", [ADDRESS], "10.99.0.1").choose()
        finally:
            ip(f"route del 10.99.0.0/24 via {DESTINATION}")
