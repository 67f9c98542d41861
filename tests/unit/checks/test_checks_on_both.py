"""Addresses that are on both hosts all the time: what can be switched by the network alone; and what would help."""

from __future__ import annotations

import pytest
from inventories import SERVICE, connection, destination, listener, only, origin, process, reasons

from migrate.checks.reasons import refusals
from migrate.pb.session_pb2 import Container, HostInventory, TcpSocket
from migrate.request import Along

ANYWHERE = ["none", "exec:/etc/network"]
WAYS = [*ANYWHERE, "route:gateway"]


def there() -> HostInventory:
    """A destination that has the address, too."""
    found = destination()
    found.interfaces[0].addresses.append(f"{SERVICE}/32")
    return found


@pytest.mark.parametrize("switch", WAYS)
def test_addresses_on_both(switch: str) -> None:
    assert reasons(None, None, there(), switch=switch) == []
    reason = only(reasons(switch=switch))
    assert (reason.code, reason.role) == ("address-missing", "destination")
    assert f"on both for --switch {switch}" in reason.text
    assert reason.remedy == f"Add it: ip addr add {SERVICE}/32 dev lo"
    away = origin()
    del away.interfaces[1].addresses[-1]
    assert [one.role for one in reasons(None, away, switch=switch)] == ["origin", "destination"]
    six = process(sockets=[connection("fd77:1::100", peer="fd77:2::1")])
    assert {one.remedy for one in reasons(six, switch=switch)} == {
        "Add it: ip addr add fd77:1::100/128 dev lo preferred_lft 0"
    }


@pytest.mark.parametrize("switch", WAYS)
def test_the_hosts_own_address(switch: str) -> None:
    reason = only(reasons(process(sockets=[connection("10.77.1.1")]), switch=switch))
    assert (reason.code, reason.role) == ("address-of-host", "origin")


@pytest.mark.parametrize("switch", ["address", *WAYS])
def test_connections_that_the_process_has_made(switch: str) -> None:
    """What helps a server does not help them: nobody comes to their address."""
    out = process(sockets=[listener("0.0.0.0"), connection("10.77.1.1", port=40000, peer_port=5432)])
    reason = only(reasons(out, switch=switch))
    assert "has made these connections itself" in reason.remedy
    assert "ip addr add ADDRESS/24 dev eth0" in reason.remedy and "proxy_bind" in reason.remedy
    came_in = process(sockets=[listener("0.0.0.0"), connection("10.77.1.1")])
    assert "let its clients use it" in only(reasons(came_in, switch=switch)).remedy


@pytest.mark.parametrize("switch", ANYWHERE)
def test_another_process_may_have_the_address(switch: str) -> None:
    """The network may tell them from each other, by the port for one."""
    other = connection(port=81, peer_port=4001, holder="sshd (PID 9)")
    assert reasons(None, origin(taken_ports=[other]), there(), switch=switch) == []


def test_but_not_where_the_whole_address_is_switched() -> None:
    other = connection(port=81, peer_port=4001, holder="sshd (PID 9)")
    reason = only(reasons(None, origin(taken_ports=[other]), there(), switch="route:gateway"))
    assert reason.code == "address-shared" and "sshd (PID 9)" in reason.text


@pytest.mark.parametrize(("peer", "role"), [("10.77.1.1", "origin"), ("10.77.1.2", "destination")])
def test_a_peer_on_one_of_the_two_hosts(peer: str, role: str) -> None:
    """What that host sends to the address never leaves it."""
    here = origin(taken_ports=[connection(peer, 4000, SERVICE, 80, holder="curl (PID 9)")])
    ours = process(sockets=[listener(), connection(peer=peer)])
    reason = only(reasons(ours, here, there(), switch="none"))
    assert (reason.code, reason.role) == (f"peer-on-{role}", role)


def test_what_the_way_itself_refuses() -> None:
    needed = {SERVICE: ("/etc/network cannot be run", "Install it.")}
    found = refusals(process(), origin(), there(), Along(), needed, switch="exec:/etc/network")
    assert [(one.code, one.text, one.remedy) for one in found] == [("switch-impossible", *needed[SERVICE])]


def test_a_container_with_a_network_of_its_own() -> None:
    own = process(container=Container(network="/run/netns/a"))
    found = [one for one in reasons(own, None, there(), switch="none") if one.code == "switch-container"]
    assert "Leave out --switch" in only(found).remedy


def test_an_idle_server_on_a_wildcard_address() -> None:
    """With a command somebody has to say which address is switched; with none nothing is."""
    idle = process(
        sockets=[TcpSocket(pid=100, fd=3, state=10, local_ip=bytes(4), local_port=80, peer_ip=bytes(4))]
    )
    assert only(reasons(idle, switch="exec:/etc/network")).code == "address-unknown"
    assert reasons(idle, switch="exec:/etc/network", no_address=True) == []
    assert reasons(idle, switch="none") == []
