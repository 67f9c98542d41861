"""Sockets of the process: their addresses, their peers, their ports."""

from __future__ import annotations

import pytest
from inventories import (
    SERVICE,
    connection,
    destination,
    listener,
    only,
    origin,
    process,
    reasons,
)

from migrate.inventory import ports, translated
from migrate.inventory.ports import service_addresses
from migrate.pb.session_pb2 import (
    Interface,
    TcpSocket,
)
from tcpcp.record.ici import State


def test_service_addresses() -> None:
    sockets = [
        listener("0.0.0.0"), listener("::"), listener("127.0.0.1"), listener("::1"), connection(),
        connection("fd77:1::100", peer="fd77:2::1"), connection(peer_port=5),
    ]  # fmt: skip
    found = service_addresses(process(sockets=sockets, other_addresses=["10.77.1.101", "127.0.0.2"]))
    assert found == [SERVICE, "fd77:1::100", "10.77.1.101"]


def test_address_of_the_host_itself() -> None:
    sockets = [listener("0.0.0.0"), connection("10.77.1.1")]
    for here in (origin(), origin(own_addresses=[], ssh_addresses=["10.77.1.1"])):
        reason = only(reasons(process(sockets=sockets), here))
        assert (reason.code, reason.role) == ("address-of-host", "origin")
        assert "10.77.1.1:80 - 10.77.2.1:4000" in reason.text
        assert "ip addr add ADDRESS/24 dev eth0" in reason.remedy


def test_switches_of_other_packages_judge_addresses_themselves() -> None:
    assert reasons(process(sockets=[connection("10.77.1.1")]), switch="pigeon") == []


def test_address_that_is_not_here() -> None:
    reason = only(reasons(process(sockets=[connection("10.77.1.50")])))
    assert reason.code == "address-missing"
    assert "migrate --forwards" in reason.remedy
    assert reason.remedy.endswith("Add it: ip addr add 10.77.1.50/24 dev eth0")


def test_address_shared_with_another_process() -> None:
    other = connection(peer_port=4001, holder="sshd (PID 9)")
    reason = only(reasons(None, origin(taken_ports=[other])))
    assert reason.code == "address-shared" and "sshd (PID 9)" in reason.text


def test_address_already_there() -> None:
    there = destination()
    there.interfaces[1].addresses.append(f"{SERVICE}/32")
    reason = only(reasons(None, None, there))
    assert (reason.code, reason.role) == ("address-taken", "destination")
    assert reason.remedy == f"Remove it there: ip addr del {SERVICE}/32 dev eth0"


def test_destination_on_another_network() -> None:
    elsewhere = [Interface(name="eth0", addresses=["192.0.2.9/24"], up=True)]
    assert only(reasons(None, None, destination(interfaces=elsewhere))).code == "address-no-network"
    down = [Interface(name="eth0", addresses=["10.77.1.2/24"], up=False)]
    assert only(reasons(None, None, destination(interfaces=down))).code == "address-no-network"


def test_link_local() -> None:
    found = reasons(process(sockets=[connection("fe80::1", peer="fe80::2")]))
    assert [one.code for one in found] == ["address-link-local"]


def test_loopback_inside_the_tree() -> None:
    pair = [
        listener("127.0.0.1", 6379),
        connection("127.0.0.1", 6379, "127.0.0.1", 5000),
        connection("127.0.0.1", 5000, "127.0.0.1", 6379),
    ]
    assert reasons(process(sockets=pair)) == []
    reason = only(reasons(process(sockets=pair[:2])))
    assert reason.code == "peer-on-origin" and "127.0.0.1:6379 - 127.0.0.1:5000" in reason.text


def test_an_end_that_was_closed_on_this_host_is_no_process() -> None:
    one = connection("127.0.0.1", 6379, "127.0.0.1", 5000)
    one.state = State.CLOSE_WAIT
    reason = only(reasons(process(sockets=[one])))
    assert (
        reason.code == "peer-on-origin" and "has closed it" in reason.text and "not moved" not in reason.text
    )


def test_peer_on_the_origin_by_its_address() -> None:
    assert only(reasons(process(sockets=[connection(peer="10.77.1.1")]))).code == "peer-on-origin"


def test_peer_on_the_destination() -> None:
    reason = only(reasons(process(sockets=[connection(peer="10.77.1.2")])))
    assert (reason.code, reason.role) == ("peer-on-destination", "destination")


def test_ports_taken() -> None:
    taken = listener("0.0.0.0", holder="apache2 (PID 812)")
    reason = only(reasons(None, None, destination(taken_ports=[taken])))
    assert (reason.code, reason.role) == ("port-taken", "destination")
    assert reason.text == "port 80 is taken by apache2 (PID 812) on *:80"
    assert "sport = :80" in reason.remedy


def test_problems_of_sockets() -> None:
    problem = "10.77.1.100:80 - 10.77.2.1:4000: urgent data is waiting to be read"
    reason = only(reasons(process(sockets=[connection(problem=problem)])))
    assert reason.code == "socket" and "descriptor 4 of nginx (PID 100)" in reason.text
    assert "Try again" in reason.remedy


@pytest.mark.parametrize(
    ("other", "remedy"),
    (("10.77.1.100:8080 - 10.77.2.1:4000", "address and port"), (translated.NUMBERS, "SYNPROXY")),
)
def test_a_translation_has_its_own_remedy(other: str, remedy: str) -> None:
    problem = translated.words(connection(), other)
    assert remedy in only(reasons(process(sockets=[connection(problem=problem)]))).remedy


def test_a_thousand_of_one_kind() -> None:
    sockets = [connection(peer="10.77.1.2", peer_port=port) for port in range(1, 1001)]
    found = reasons(process(sockets=sockets))
    assert len(found) == 6 and found[-1].text == "and 995 more of this kind"


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (listener(), listener(), True),
        (listener(), listener("0.0.0.0"), True),
        (listener("0.0.0.0"), listener(), True),
        (listener("::"), listener(), True),
        (listener("::", ipv6_only=True), listener(), False),
        (listener("0.0.0.0"), listener("::"), True),
        (listener("0.0.0.0"), listener("::", ipv6_only=True), False),
        (listener("0.0.0.0"), listener("fd77:1::2"), False),
        (listener(), listener("10.77.1.2"), False),
        (listener(), listener(port=81), False),
        (listener(device="eth0"), listener(device="eth1"), False),
        (listener(device="eth0"), listener(), True),
        (connection(), listener("0.0.0.0"), True),
        (listener("0.0.0.0"), connection(), False),
        (connection(), connection(), True),
        (connection(), connection(peer_port=1), False),
        (connection(), connection(state=State.TIME_WAIT), False),
        (listener(port=0), listener(port=0), False),
    ],
)
def test_clash(ours: TcpSocket, theirs: TcpSocket, expected: bool) -> None:
    assert ports.clash(ours, theirs) is expected
