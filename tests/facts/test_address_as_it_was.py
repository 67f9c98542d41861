"""A service address that comes back to the origin is as it was, and so are all routes; judged by ``ip`` alone."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from harness.network import Network
from netns import Namespace, eventually, ip

from migrate import switch
from migrate.errors import SwitchError
from migrate.switch import Address, announce, netlink
from migrate.switch.address import AtOrigin, setup

ID = "0123456789ab"
V4, V6 = "172.20.0.100", "fd99::100"
#: Commands that give this host the service address, and what has to do with it.
SETUPS = {
    "plain": ["addr add 172.20.0.100/24 dev eth0"],
    "lease": ["addr add 172.20.0.100/24 dev eth0 brd + valid_lft 5000 preferred_lft 4000 label eth0:vip"],
    "metric": ["addr add 172.20.0.100/24 metric 500 dev eth0"],
    "scope": ["addr add 172.20.0.100/32 dev eth0 scope link noprefixroute"],
    "deprecated": ["addr add 172.20.0.100/24 dev eth0 preferred_lft 0"],
    "peer": ["addr add 172.20.0.100 peer 172.20.0.1/32 dev eth0"],
    "secondary": ["addr add 172.20.0.5/24 dev eth0", "addr add 172.20.0.100/24 dev eth0 label eth0:x"],
    "NetworkManager": [
        "addr add 172.20.0.100/24 dev eth0 noprefixroute",
        "route add 172.20.0.0/24 dev eth0 proto kernel scope link src 172.20.0.100 metric 100",
    ],
    "NetworkManager-secondary": [
        "addr add 172.20.0.5/24 dev eth0 noprefixroute",
        "addr add 172.20.0.100/24 dev eth0 noprefixroute",
        "route add 172.20.0.0/24 dev eth0 proto kernel scope link src 172.20.0.5 metric 100",
    ],
    "another table": [
        "addr add 172.20.0.100/24 dev eth0",
        "route add 172.20.0.0/24 dev eth0 table 77 proto kernel src 172.20.0.100 mtu 1400 advmss 1300",
    ],
    "replaced": [
        "addr add 172.20.0.100/24 dev eth0",
        "route del 172.20.0.0/24 dev eth0",
        "route add 172.20.0.0/24 dev eth0 proto kernel src 172.20.0.100 metric 7 rto_min 90ms",
    ],
    "removed": ["addr add 172.20.0.100/24 dev eth0", "route del 172.20.0.0/24 dev eth0"],
    "two interfaces": [
        "addr add 172.20.0.5/24 dev eth1",
        "addr add 172.20.0.100/24 metric 500 dev eth0",
    ],
    "v6": ["addr add fd99::100/64 dev eth0"],
    "v6-nodad": ["addr add fd99::100/64 dev eth0 nodad"],
    "v6-metric": ["addr add fd99::100/64 metric 77 dev eth0 nodad"],
    "v6-lease": ["addr add fd99::100/64 dev eth0 valid_lft 5000 preferred_lft 4000 nodad noprefixroute"],
    "v6-lease-route": ["addr add fd99::100/64 dev eth0 valid_lft 5000 preferred_lft 4000 nodad"],
    "v6-home": ["addr add fd99::100/64 dev eth0 home nodad deprecated"],
    "v6-peer": ["addr add fd99::100 peer fd99::1/128 dev eth0 nodad"],
    "v6-NetworkManager": [
        "addr add fd99::100/64 dev eth0 noprefixroute nodad",
        "-6 route add fd99::/64 dev eth0 proto kernel metric 100",
    ],
    "v6-two-interfaces": [
        "addr add fd99::5/64 dev eth1 nodad",
        "addr add fd99::100/64 metric 500 dev eth0 nodad",
    ],
}


@pytest.fixture
def host() -> Iterator[None]:
    """This thread is on a host with two interfaces."""
    namespace = Namespace()
    with namespace.entered():
        ip("link add eth0 type veth peer name far0")
        ip("link add eth1 type veth peer name far1")
        for one in ("eth0", "eth1", "far0", "far1"):
            ip(f"link set {one} up")
        # A link that has come up is told to everybody a moment later, and gets its IPv6 routes then.
        eventually(lambda: ip("-o link").count("state UP") == 4, "the links are up")
        eventually(lambda: ip("-6 route show table local").count("ff00::/8") == 4, "they have their routes")
        ip("addr add 10.9.0.1/24 dev eth0")
        announce.open_sender.cache_clear()
        yield
        announce.open_sender.cache_clear()
    namespace.close()


def origin(name: str) -> AtOrigin:
    version6 = name.startswith("v6")
    for command in SETUPS[name]:
        ip(command)
    eventually(lambda: "tentative" not in ip("addr"), "duplicates were looked for")
    made = switch.make(
        "address", "origin", ID, [Address(V6 if version6 else V4, 64 if version6 else 24, "eth0")]
    )
    assert isinstance(made, AtOrigin)
    return made


def somebody_else(part: switch.Switch) -> switch.Switch:
    return switch.from_details(json.loads(json.dumps(part.details())))


def is_as(before: Network) -> None:
    """Soon: the kernel adds the route of an IPv6 address by a worker of its own (addrconf_dad_work())."""
    eventually(lambda: not Network(ip).changes(before), lambda: str(Network(ip).changes(before)))


@pytest.mark.parametrize("name", SETUPS)
def test_all_is_as_it_was(host: None, name: str) -> None:
    part = origin(name)
    before = Network(ip)
    part.choose()
    part.switch()
    part.verify()
    other = somebody_else(part)
    other.undo()
    is_as(before)
    other.undo()
    is_as(before)
    assert other.changed() == []


@pytest.mark.parametrize("name", ["lease", "v6-lease"])
def test_a_lease_goes_on_while_it_is_away(host: None, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    part = origin(name)
    part.choose()
    part.switch()
    later = setup.now() + 4500
    monkeypatch.setattr(setup, "now", lambda: later)
    other = somebody_else(part)
    other.undo()
    found = ip("addr show dev eth0")
    assert re.search(r"valid_lft (49\d|500)sec preferred_lft 0sec", found), found
    assert other.changed() == []


@pytest.mark.parametrize("name", ["lease", "v6-lease"])
def test_a_lease_that_is_over(host: None, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else may have got it."""
    part = origin(name)
    part.choose()
    part.switch()
    away = Network(ip)
    later = setup.now() + 5000
    monkeypatch.setattr(setup, "now", lambda: later)
    other = somebody_else(part)
    other.undo()
    other.remind()
    assert Network(ip).changes(away) == []
    assert ["lifetime" in said and "over" in said for said in other.changed()] == [True]


@pytest.mark.parametrize("name", ["NetworkManager", "v6-metric"])
def test_a_journal_of_a_version_before(host: None, name: str) -> None:
    part = origin(name)
    part.choose()
    part.switch()
    details = part.details()
    for one in details["found"]:
        for key in ("until", "peer", "routes"):
            del one[key]
        for key in ("rt_priority", "proto"):
            one["attributes"].pop(key, None)
    old = switch.from_details(json.loads(json.dumps(details)))
    old.undo()
    assert (V6 if name.startswith("v6") else V4) in ip("addr")
    assert old.changed() == []
    assert old.details() == details


BAD: list[dict[str, Any]] = [
    {"until": "soon"},
    {"until": [1, True]},
    {"until": [1e300, None]},
    {"until": [1]},
    {"routes": "x"},
    {"routes": ["no hex"]},
    {"routes": ["02180000"]},
    {"routes": ["07" + "00" * 40]},
    {"routes": [5]},
    {"routes": None},
    {"peer": "nobody"},
    {"peer": 5.5},
    {"attributes": {"scope": 0, "rt_priority": 500}},
    {"attributes": {"scope": 0, "flags": None, "rt_priority": 500}},
]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_what_makes_no_sense_does_not_keep_the_address_away(host: None, bad: dict[str, Any]) -> None:
    part = origin("metric")
    part.choose()
    part.switch()
    details = json.loads(json.dumps(part.details()))
    details["found"][0] |= bad
    other = switch.from_details(details)
    other.undo()
    assert "172.20.0.100/24 metric 500" in ip("addr")
    assert len(other.changed()) == 1 and "cannot be read" in other.changed()[0]


def test_what_differs_is_told(host: None) -> None:
    part = origin("NetworkManager")
    part.choose()
    part.switch()
    ip("addr add 172.20.0.100/25 dev eth0 valid_lft 500 preferred_lft 0")
    part.undo()
    ip("route del 172.20.0.0/24 dev eth0")
    address, *routes = part.changed()
    for word in (
        "172.20.0.100 of eth0",
        "prefix length was 24 and is 25",
        "flags was noprefixroute and is none",
        "deprecated",
        "500 s",
    ):
        assert word in address
    assert {route.rsplit(": ")[0] for route in routes} == {
        "a route by eth0 is gone",
        "a route by eth0 has come",
    }
    assert routes[0].endswith(": 172.20.0.0/24 proto kernel metric 100 src 172.20.0.100")


def test_an_address_that_stands_back_is_told(host: None) -> None:
    """This host had used another one for its own connections, and goes on with that."""
    ip("addr add fd99::100/64 dev eth0 nodad")
    ip("addr add fd99::5/64 dev eth0 nodad")
    part = switch.make("address", "origin", ID, [Address(V6, 64, "eth0")])
    part.choose()
    part.switch()
    part.undo()
    assert len(part.changed()) == 1 and "deprecated" in part.changed()[0]


def test_what_has_a_lifetime_is_told(host: None) -> None:
    part = origin("lease")
    part.choose()
    assert len(part.notes()) == 1 and part.notes()[0].startswith("172.20.0.100 has a lifetime")
    ip("addr change 172.20.0.100/24 dev eth0")
    part.choose()
    assert part.notes() == []


@pytest.mark.parametrize(
    ("command", "route"),
    [
        ("route add 10.50.0.0/24 dev eth1", "10.50.0.0/24"),
        ("route add 10.51.0.0/24 via 172.20.0.7 table 9", "10.51.0.0/24"),
        ("route add default via 172.20.0.7 proto dhcp", "0.0.0.0/0"),
        ("route add 10.52.0.0/24 dev eth1 proto kernel", "10.52.0.0/24"),
        ("route add 172.20.0.0/24 dev eth1 proto static metric 9", "172.20.0.0/24"),
    ],
)
def test_the_only_address_of_an_interface_with_routes_is_refused(
    host: None, command: str, route: str
) -> None:
    """The kernel removes all routes of an interface with its last address, whoever made them."""
    ip("addr add 172.20.0.100/24 dev eth1")
    ip(command)
    part = switch.make("address", "origin", ID, [Address(V4, 24, "eth1")])
    with pytest.raises(SwitchError, match=f"the only IPv4 address of eth1.*: {route} proto"):
        part.choose()
    ip("addr add 10.8.0.1/24 dev eth1")
    both = switch.make("address", "origin", ID, [Address(V4, 24, "eth1"), Address("10.8.0.1", 24, "eth1")])
    with pytest.raises(SwitchError, match="the only IPv4 address of eth1"):
        both.choose()
    before = Network(ip)
    part.choose()
    part.switch()
    part.undo()
    assert Network(ip).changes(before) == []


def test_routes_by_another_interface_that_use_it_are_refused(host: None) -> None:
    """Even if they call themselves the kernel's."""
    ip("addr add 172.20.0.100/24 dev eth0")
    ip("route add 10.50.0.0/24 dev eth1 proto kernel src 172.20.0.100")
    part = switch.make("address", "origin", ID, [Address(V4, 24, "eth0")])
    with pytest.raises(SwitchError, match="use 172.20.0.100 as their source: 10.50.0.0/24"):
        part.choose()


def test_who_gave_an_address_is_kept(host: None) -> None:
    """IFA_PROTO, which the ``ip`` of this host may not know."""
    netlink.add(socket.if_nametoindex("eth0"), V4, 24, proto=7)
    if not any(one.protocol == 7 for one in netlink.addresses()):
        pytest.skip("this kernel has no IFA_PROTO")
    part = switch.make("address", "origin", ID, [Address(V4, 24, "eth0")])
    part.choose()
    part.switch()
    part.undo()
    assert [one.protocol for one in netlink.addresses() if str(one.ip) == V4] == [7]
