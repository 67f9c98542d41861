"""An address that the kernel removes by itself, and what else of its network it must leave alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from netns import Namespace, eventually, ip

from migrate import switch
from migrate.switch import Address, announce, netlink

OWN = ("10.9.0.1/24", "fd09::1/64")
SERVICE = (("10.9.0.100", 24), ("fd09::100", 64))


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
    with netlink.route("lease") as handle:
        index = handle.link_lookup(ifname="eth0")[0]
        for address, length in SERVICE:
            netlink.lease(index, address, length, valid_s)


def here() -> set[str]:
    return netlink.here([address for address, _ in SERVICE])


def routes() -> list[str]:
    """The networks' routes, without what the kernel counts down."""
    lines = (ip("route show dev eth0") + ip("-6 route show dev eth0")).splitlines()
    assert not any("expires" in line for line in lines if not line.startswith("fe80")), lines
    return sorted(line.strip() for line in lines if not line.startswith("fe80"))


def test_addresses_are_the_same_however_they_are_asked_for(host: None) -> None:
    """By the kernel's own bytes, and by pyroute2; also one that is for one other host alone."""
    ip("address add 192.0.2.77 peer 198.51.100.7 dev eth0")
    with netlink.route("look") as handle:
        slowly = [(str(one.ip), one.index) for one in netlink.addresses(handle)]
    assert netlink.places() == slowly
    assert "192.0.2.77" in dict(slowly) and any(":" in address for address, _ in slowly)
    assert netlink.here(["192.0.2.77", "198.51.100.7"]) == {"192.0.2.77"}


def test_a_lease_ends_by_itself_and_takes_no_route_along(host: None) -> None:
    before = routes()
    lease(1)
    assert here() == {address for address, _ in SERVICE}
    assert routes() == before
    eventually(lambda: not here(), "the leases have ended")
    assert routes() == before


def test_a_lease_is_renewed_and_made_good(host: None) -> None:
    """What is there for good looks as if it had been added so."""
    with netlink.route("add") as handle:
        index = handle.link_lookup(ifname="eth0")[0]
        for address, length in SERVICE:
            netlink.add(handle, index, address, length, **(netlink.DEPRECATED if ":" in address else {}))
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
