"""A connection keeps the origin's own address and runs on the destination; when it has ended, nothing is left."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from gap_hosts import GapHosts
from netns import eventually, ip

import tcpcp
from migrate.errors import SwitchError
from migrate.switch import Address, forward
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
        return {"origin": gap_hosts.origin, "destination": gap_hosts.destination}[role].entered()

    ends = (Endpoint(_ip(ORIGIN), 40000), Endpoint(_ip(PEER), PORT))
    return switches.Case(f"forward:{DESTINATION}", [ADDRESS], on, state, bindable, flows=[Flow(*ends)])


def _ip(text: str):  # type: ignore[no-untyped-def]
    import ipaddress

    return ipaddress.ip_address(text)


@pytest.mark.parametrize("check", switches.CHECKS, ids=lambda check: check.__name__)
def test_it_is_one(case: switches.Case, check: Callable[[switches.Case], None]) -> None:
    check(case)


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
