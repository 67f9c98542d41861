"""What can be forwarded, by its sockets and both hosts' addresses; and what is said where it cannot be."""

from __future__ import annotations

import pytest
from inventories import connection, destination, host, listener, only, origin, process, reasons

from migrate.checks import choice, to_forward
from migrate.checks.reasons import notes, refusals
from migrate.checks.subject import Subject
from migrate.pb.session_pb2 import Container, HostInventory, ProcessInventory
from migrate.request import Along

OWN = "10.77.1.1"


def pool(*more: object, **fields: object) -> ProcessInventory:
    """A process that has connected to a database from the host's own address."""
    made = connection(OWN, port=40000, peer_port=5432)
    return process(sockets=[made, *more], **fields)


def codes(*words: object, switch: str = "forward") -> set[tuple[str, str]]:
    return {(one.code, one.role) for one in reasons(*words, switch=switch)}


def test_what_can_be() -> None:
    assert reasons(pool(), switch="forward") == []
    assert reasons(pool(listener("127.0.0.1")), switch="forward") == []


@pytest.mark.parametrize("where", ["0.0.0.0", OWN])
def test_a_listener(where: str) -> None:
    """Who comes later would come to the origin."""
    reason = only(reasons(pool(listener(where)), switch="forward"))
    assert (reason.code, reason.role) == ("forward-listener", "origin")
    assert "later" in reason.text and "--switch auto" in reason.remedy


def test_ipv6() -> None:
    out = process(sockets=[connection("fd77:1::1", port=40000, peer_port=5432, peer="fd77:2::1")])
    assert only(reasons(out, switch="forward")).code == "forward-ipv6"


def test_an_address_of_another_host() -> None:
    """The connection is forwarded to this host."""
    away = process(sockets=[connection("10.77.1.9", port=40000, peer_port=5432)])
    reason = only(reasons(away, switch="forward"))
    assert reason.code == "address-missing" and "cannot move on" in reason.remedy


def test_udp() -> None:
    reason = only(reasons(pool(other_addresses=[OWN]), switch="forward"))
    assert reason.code == "forward-other-sockets" and "UDP" in reason.text


def test_an_address_without_a_connection() -> None:
    assert codes(pool(service_addresses=["10.77.1.100"])) == {("forward-unused", "origin")}


def test_a_container() -> None:
    found = reasons(pool(container=Container(runtime="runc", network="/proc/1/ns/net")), switch="forward")
    assert ("switch-container", "origin") in {(one.code, one.role) for one in found}


def elsewhere() -> HostInventory:
    """A destination on another network."""
    found = destination()
    for interface in found.interfaces:
        kept = [one for one in interface.addresses if not one.startswith("10.77.1.")]
        interface.addresses[:] = [*kept, "10.99.0.2/24"] if interface.name != "lo" else kept
    return found


def test_the_destination() -> None:
    assert codes(pool(), None, elsewhere()) == {("address-no-network", "destination")}
    there = destination()
    there.interfaces[0].addresses.append(f"{OWN}/32")
    assert ("address-taken", "destination") in codes(pool(), None, there)


@pytest.mark.parametrize(("peer", "role"), [(OWN, "origin"), ("10.77.1.2", "destination")])
def test_a_peer_on_one_of_the_hosts(peer: str, role: str) -> None:
    out = process(sockets=[connection(OWN, port=40000, peer_port=5432, peer=peer)])
    assert (f"peer-on-{role}", role) in codes(out)


def test_what_the_kernel_cannot() -> None:
    needed = {OWN: ("the kernel's packet filter refused", "modprobe")}
    reason = only(refusals(pool(), origin(), destination(), Along(), needed, switch="forward"))
    assert (reason.code, reason.remedy) == ("switch-impossible", "modprobe")


@pytest.mark.parametrize("switch", ["address", "none", "route:gateway"])
def test_other_ways_name_it(switch: str) -> None:
    """Where it would do."""
    helps = "--switch auto." if switch == "address" else f"--switch forward+{switch}."
    for sockets in ((), (listener("0.0.0.0"),)):
        assert helps in only(reasons(pool(*sockets), switch=switch)).remedy
    serving = only(reasons(process(sockets=[listener(OWN)]), switch=switch))
    assert "forward" not in serving.remedy and "auto" not in serving.remedy


def test_an_address_that_is_named() -> None:
    """A stranger must not get the packets."""
    assert reasons(pool(), switch="forward:10.77.1.2") == []
    reason = only(reasons(pool(), switch="forward:10.77.1.3"))
    assert (reason.code, reason.role) == ("forward-elsewhere", "destination")


def test_the_neighbour() -> None:
    assert to_forward.neighbour(destination(), OWN, 24) == "10.77.1.2"
    assert to_forward.neighbour(elsewhere(), OWN, 24) == ""
    quiet = destination()
    quiet.interfaces[0].addresses.append("10.77.1.100/32")
    assert to_forward.neighbour(quiet, OWN, 24) == "10.77.1.2", "that one is on the origin, too"
    assert to_forward.neighbour(origin(), "192.0.2.1", 24) == ""


# --- with service addresses ----------------------------------------------------------------------------------


def proxy(*more: object, **fields: object) -> ProcessInventory:
    """It is reached at a service address, and has connected from the host's own."""
    out = connection(OWN, port=40000, peer_port=5432)
    return process(sockets=[listener(), connection(), out, *more], **fields)


BOTH = "forward+address"


def test_both_ways() -> None:
    assert reasons(proxy(), switch=BOTH) == []
    assert {one.code for one in reasons(proxy())} == {"address-of-host"}
    assert {one.code for one in reasons(proxy(), switch="forward")} >= {"forward-listener"}


def test_a_wildcard() -> None:
    """Where the service address is known, by a client or by name; nothing that was accepted can stay behind."""
    wild = listener("0.0.0.0")
    assert reasons(pool(wild, connection()), switch=BOTH) == []
    assert {one.code for one in reasons(pool(wild), switch=BOTH)} == {"address-unknown"}
    assert reasons(pool(wild, service_addresses=["10.77.1.100"]), switch=BOTH) == []
    assert reasons(pool(wild), switch=BOTH, no_address=True) == []
    (note,) = notes(pool(wild), origin(), switch=BOTH)
    assert "reach the origin" in note
    accepted = connection(OWN, port=80, peer_port=4001)
    found = reasons(pool(wild, connection(), accepted), switch=BOTH)
    assert {one.code for one in found} == {"address-of-host"}


def test_an_address_of_others() -> None:
    """It stays, too, if the process has only connected from it."""
    out = process(sockets=[connection(port=40000, peer_port=5432)])
    other = listener(port=81)
    other.holder = "named (PID 7)"
    here = origin(taken_ports=[other])
    assert {one.code for one in reasons(out, here)} == {"address-shared"}
    assert reasons(out, here, switch=BOTH) == []


@pytest.mark.parametrize("switch", ["forward", BOTH])
def test_connections_that_go_home(switch: str) -> None:
    """To the host whose address they have; to no other one."""
    out = connection("10.77.1.2", port=40000, peer_port=5432)
    listening = [] if switch == "forward" else [listener(), connection()]
    home = process(sockets=[out, *listening])
    assert reasons(home, switch=switch) == []
    assert auto(home) == switch
    needed = {"10.77.1.2": ("not forwarded to this host", "Let the process close them.")}
    reason = only(refusals(home, origin(), destination(), Along(), needed, switch=switch))
    assert (reason.code, reason.text) == ("switch-impossible", "not forwarded to this host")
    third = host("third", 3, files=list(process().files))
    reason = only(reasons(home, None, third, switch=switch))
    assert reason.code == "address-missing" and "cannot move on" in reason.remedy


def test_an_address_that_shall_move() -> None:
    """It was named: what cannot move is refused, and not left."""
    named = reasons(proxy(service_addresses=[OWN]), switch=BOTH, addresses=(OWN,))
    assert {one.code for one in named} == {"address-of-host"}


def test_what_stands_in_the_way_of_one() -> None:
    """Though the other is possible."""
    six = connection("fd77:1::1", port=40001, peer_port=5432, peer="fd77:2::1")
    here = origin(own_addresses=[OWN, "fd77:1::1"])
    reason = only(reasons(proxy(six), here, switch=BOTH))
    assert reason.code == "forward-ipv6" and "proxy_bind" in reason.remedy
    assert {one.code for one in reasons(proxy(other_addresses=[OWN]), switch=BOTH)} == {
        "forward-other-sockets"
    }
    away = connection("10.77.1.9", port=40001, peer_port=5432)
    reason = only(reasons(proxy(away), switch=BOTH))
    assert reason.code == "address-missing" and "cannot move on" in reason.remedy


def auto(of: ProcessInventory) -> str:
    return choice.chosen(Subject(of, origin(), destination(), switch="auto"))[0]


def test_auto() -> None:
    """What does, and no more than that."""
    assert auto(process()) == "address"
    assert auto(pool()) == "forward"
    assert auto(pool(listener("127.0.0.1"))) == "forward"
    assert auto(proxy()) == auto(pool(listener("0.0.0.0"))) == BOTH
    assert auto(process(sockets=[listener(OWN), connection(OWN)])) == "address"
    assert auto(proxy(container=Container(runtime="runc", network="/proc/1/ns/net"))) == "address"
    assert choice.chosen(Subject(pool(), origin(), destination(), switch="none")) == ("none", "")
