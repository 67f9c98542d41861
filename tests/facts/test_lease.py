"""An address that the kernel removes by itself, and what else of its network it must leave alone."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from netns import Namespace, eventually, ip

from migrate import rtnetlink, switch
from migrate.errors import SwitchError
from migrate.switch import Address, announce, netlink

OWN = ("10.9.0.1/24", "fd09::1/64")
SERVICE = (("10.9.0.100", 24), ("fd09::100", 64))
SCOPES = {0: "global", 200: "site", 253: "link", 254: "host"}


@pytest.fixture
def host() -> Iterator[None]:
    """This thread is on a host with addresses of both networks."""
    namespace = Namespace()
    with namespace.entered():
        ip("link add eth0 type veth peer name eth1")
        for one in ("eth0", "eth1"):
            ip(f"link set {one} up")
        for one in OWN:
            ip(f"address add {one} dev eth0" + (" nodad" if ":" in one else ""))
        yield
    namespace.close()


def lease(valid_s: int) -> None:
    for address, length in SERVICE:
        netlink.lease(socket.if_nametoindex("eth0"), address, length, valid_s)


def here() -> set[str]:
    return netlink.here([address for address, _ in SERVICE])


def routes() -> list[str]:
    """The networks' routes, without what the kernel counts down."""
    lines = (ip("route show dev eth0") + ip("-6 route show dev eth0")).splitlines()
    assert not any("expires" in line for line in lines if not line.startswith("fe80")), lines
    return sorted(line.strip() for line in lines if not line.startswith("fe80"))


def told_by_ip() -> list[dict[str, Any]]:
    return [one | {"on": link} for link in json.loads(ip("-json address show")) for one in link["addr_info"]]


def test_addresses_are_those_that_ip_shows(host: None) -> None:
    """Also one that is for one other host alone, and one with all that somebody may give an address."""
    ip("address add 192.0.2.77 peer 198.51.100.7 dev eth0")
    all_of_it = "10.8.0.5/20 broadcast 10.8.15.255 scope site label eth0:long-label metric 77"
    ip(f"address add {all_of_it} dev eth0 valid_lft 5000 preferred_lft 4000")
    shown = {one["local"]: one for one in told_by_ip()}
    found = {str(one.ip): one for one in netlink.addresses()}
    assert dict(netlink.places()) == {address: one["on"]["ifindex"] for address, one in shown.items()}
    assert netlink.here(["192.0.2.77", "198.51.100.7"]) == {"192.0.2.77"}
    assert found.keys() == shown.keys()
    for address, one in shown.items():
        assert_as_shown(found[address], one)


def assert_as_shown(found: netlink.Present, shown: dict[str, Any]) -> None:
    assert (found.device, found.prefix_length) == (shown["on"]["ifname"], shown["prefixlen"])
    assert (found.peer, found.label) == (shown.get("address", ""), shown.get("label", ""))
    assert (found.broadcast, found.metric) == (shown.get("broadcast", ""), shown.get("metric", 0))
    assert SCOPES[found.scope] == shown["scope"]
    valid_s, preferred_s = shown["valid_life_time"], shown["preferred_life_time"]
    assert abs(found.left[0] - valid_s) < 60 and abs(found.left[1] - preferred_s) < 60


def test_an_address_is_added_as_ip_adds_it(host: None) -> None:
    """Of each attribute; the kernel has no word to say of how it was told (dmesg)."""
    index, given = (
        socket.if_nametoindex("eth0"),
        {"broadcast": "10.8.15.255", "scope": 253, "rt_priority": 77},
    )
    lifetimes = {"valid_lft": 5000, "preferred_lft": 4000}
    netlink.add(
        index,
        "10.8.0.5",
        20,
        label="eth0:long-label",
        flags=netlink.IFA_F_NOPREFIXROUTE,
        **given,
        **lifetimes,
    )
    added = ip("address show dev eth0")
    ip("address del 10.8.0.5/20 dev eth0")
    ip(
        "address add 10.8.0.5/20 broadcast 10.8.15.255 scope 253 label eth0:long-label metric 77 noprefixroute"
        " dev eth0 valid_lft 5000 preferred_lft 4000"
    )
    assert without_seconds(added) == without_seconds(ip("address show dev eth0"))
    assert "eth0:long-label" in added and "metric 77" in added


def without_seconds(shown: str) -> str:
    return re.sub(r"\d{4}sec", "", shown)


def test_an_address_that_is_there_is_left_as_it_is(host: None) -> None:
    ip("address add 10.9.0.100/24 dev eth0 label eth0:mine")
    before = ip("address show dev eth0")
    netlink.add(socket.if_nametoindex("eth0"), "10.9.0.100", 24, label="eth0")
    assert ip("address show dev eth0") == before


def test_a_refusal_of_the_kernel_is_said(host: None) -> None:
    with pytest.raises(SwitchError, match="cannot have it: No such device"), netlink.route("have it"):
        netlink.add(4711, "10.9.0.100", 24)


def test_interfaces_are_those_that_ip_shows(host: None) -> None:
    """Also one that is not up, and whose name is no text."""
    subprocess.run([b"ip", b"link", b"add", b"d\xff", b"type", b"veth"], check=True)
    shown = subprocess.run(["ip", "-o", "link"], capture_output=True, check=True).stdout.splitlines()
    found = rtnetlink.links()
    assert {one.index: one.raw_name for one in found} == {
        int(line.split(b":")[0]): line.split(b": ")[1].split(b"@")[0] for line in shown
    }
    assert {one.name for one in found if one.up} == {
        os.fsdecode(line.split(b": ")[1].split(b"@")[0]) for line in shown if re.search(rb"[<,]UP[,>]", line)
    }
    hardware = {one.name: one.hardware.hex(":") for one in found}
    assert hardware["eth0"] == json.loads(ip("-json link show dev eth0"))[0]["address"]


def test_a_lease_ends_by_itself_and_takes_no_route_along(host: None) -> None:
    before = routes()
    lease(1)
    assert here() == {address for address, _ in SERVICE}
    assert routes() == before
    eventually(lambda: not here(), "the leases have ended")
    assert routes() == before


def test_a_lease_is_renewed_and_made_good(host: None) -> None:
    """What is there for good looks as if it had been added so."""
    index = socket.if_nametoindex("eth0")
    for address, length in SERVICE:
        netlink.add(index, address, length, **(netlink.DEPRECATED if ":" in address else {}))
    shown, before = ip("-o address show dev eth0"), routes()
    lease(2)
    lease(60)
    assert re.search("valid_lft (60|5[0-9])sec", ip("-o address show dev eth0")) and routes() == before
    lease(netlink.FOR_EVER)
    assert ip("-o address show dev eth0") == shown
    assert routes() == before


def test_the_destination_makes_no_route_beside_one_that_somebody_made(host: None) -> None:
    announce.open_sender.cache_clear()
    ip("address flush dev eth0 scope global")
    for version, own, network in ((4, OWN[0], "10.9.0.0/24"), (6, OWN[1], "fd09::/64")):
        ip(f"address add {own} dev eth0 noprefixroute" + (" nodad" if version == 6 else ""))
        ip(f"-{version} route add {network} dev eth0 proto kernel metric 100")
    before = routes()
    part = switch.make("address", "destination", "0123456789ab", [Address(*one) for one in SERVICE])
    part.choose()
    for step in (part.prepare, part.switch, part.keep, part.undo):
        step()
        assert routes() == before, step
    announce.open_sender.cache_clear()


@pytest.mark.parametrize("lengths", [(16, 56), (25, 80), (24, 64)], ids=str)
def test_the_destination_goes_on_using_its_own_address(host: None, lengths: tuple[int, int]) -> None:
    """Also where its network is larger, or smaller, than the service address's is at the origin."""
    announce.open_sender.cache_clear()
    ip("address flush dev eth0 scope global")
    for own, length in zip(OWN, lengths, strict=True):
        ip(f"address add {own.split('/')[0]}/{length} dev eth0" + (" nodad" if ":" in own else ""))
    before = routes()
    part = switch.make("address", "destination", "0123456789ab", [Address(*one) for one in SERVICE])
    part.choose()
    for step in (part.prepare, part.switch, part.renew, part.keep, part.undo):
        step()
        assert routes() == before, step
        assert " src 10.9.0.1 " in ip("route get 10.9.0.3"), step
        assert here() == (set() if step == part.undo else {address for address, _ in SERVICE})
    announce.open_sender.cache_clear()
