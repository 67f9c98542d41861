"""Which resets a new macvlan does not let out by the interface below it, and for how long."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from harness.wait import eventually
from netns import Namespace, ip
from unknown_connection import forgotten, is_reset, sends

from tcpcp.criu import muting
from tcpcp.criu.new_macvlans import TABLE, NewMacvlans
from tcpcp.errors import IsolationError
from tcpcp.kernel import nft

OWN, ADDRESS = "10.8.0.3", "10.8.0.2"


@dataclass
class Wired:
    """A host with an interface, a peer at its other end, and a container: 10.8.0.3, .1, and, when it comes, .2."""

    host: Namespace
    peer: Namespace
    container: Namespace

    def come(self, lower: str = "lower0") -> None:
        """The container gets a macvlan, as runtimes make it: in its own namespace."""
        with self.host.entered():
            ip(f"link add link {lower} name eth0 netns {self.container.path} type macvlan mode bridge")
        with self.container.entered():
            ip("link set eth0 address 02:00:00:00:00:02")
            ip(f"addr add {ADDRESS}/24 dev eth0")
            ip("link set eth0 up")

    def go(self) -> None:
        """Its macvlan is removed."""
        with self.container.entered():
            ip("link del eth0")

    def forgotten(self) -> socket.socket:
        """The peer's end of a connection of which the container knows nothing any more."""
        return forgotten(self.peer, self.container, ADDRESS)


@pytest.fixture
def wired() -> Iterator[Wired]:
    found = Wired(Namespace(), Namespace(), Namespace())
    with found.host.entered():
        ip(f"link add lower0 type veth peer name eth0 netns {found.peer.path}")
        ip("link set lower0 up")
        ip(f"addr add {OWN}/24 dev lower0")
    with found.peer.entered():
        ip("link set eth0 up")
        ip("addr add 10.8.0.1/24 dev eth0")
    yield found
    nft.close()
    for one in (found.host, found.peer, found.container):
        one.close()


@pytest.fixture
def muted(wired: Wired) -> Iterator[NewMacvlans]:
    with wired.host.entered():
        made = NewMacvlans()
        yield made
        made.close()


def test_without_it_is_reset(wired: Wired) -> None:
    wired.come()
    with wired.forgotten() as connection:
        connection.sendall(b"x")
        eventually(lambda: is_reset(connection), "it is reset")


def test_it_is_muted_before_anybody_looks(wired: Wired, muted: NewMacvlans) -> None:
    """The kernel does it, whatever the helper is doing just then."""
    wired.come()
    with wired.forgotten() as connection:
        sends(connection)
        assert not is_reset(connection)


def test_it_is_muted_for_some_time_only(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muting, "NEW_S", 1)
    with wired.host.entered():
        muted = NewMacvlans()
    wired.come()
    with wired.forgotten() as connection:
        sends(connection)
        assert not is_reset(connection)
        eventually(lambda: is_reset(connection), "it is reset", 30)
        with wired.host.entered():
            muted.close()


def test_who_comes_back_is_new_again(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first stay is not remembered, although it has the same address."""
    monkeypatch.setattr(muting, "NEW_S", 1)
    with wired.host.entered():
        muted = NewMacvlans()
        wired.come()
        with wired.forgotten() as connection:
            connection.sendall(b"x")
            eventually(lambda: is_reset(connection), "it is reset", 30)
        wired.go()
        muted.look()
        wired.come()
        with wired.forgotten() as connection:
            sends(connection)
            assert not is_reset(connection)
        muted.close()


def test_the_host_itself_resets_as_ever(wired: Wired, muted: NewMacvlans) -> None:
    with forgotten(wired.peer, wired.host, OWN) as connection:
        connection.sendall(b"x")
        eventually(lambda: is_reset(connection), "it is reset")


def test_whoever_connects_is_refused_as_ever(wired: Wired, muted: NewMacvlans) -> None:
    wired.come()
    with wired.peer.entered(), pytest.raises(ConnectionRefusedError):
        socket.create_connection((ADDRESS, 81), 10)


def test_other_packets_pass(wired: Wired, muted: NewMacvlans) -> None:
    """Datagrams and what is no IP have no flags."""
    wired.come()
    with wired.container.entered():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind((ADDRESS, 7))
        receiver.settimeout(10)
    with wired.peer.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(10)
        for _ in range(3):
            asking.sendto(b"x", (ADDRESS, 7))
            receiver.sendto(b"y", receiver.recvfrom(1)[1])
            assert asking.recv(1) == b"y"
    receiver.close()


def test_interfaces_that_come_and_go(wired: Wired, muted: NewMacvlans) -> None:
    """Each has its part of the table; one that has become a bridge's port, or has gone, has none."""

    def interfaces() -> str:
        muted.look()
        return nft.run(f"list table {TABLE}")

    ip("link add more0 type veth peer name more1")
    assert interfaces().count('device "more') == 2
    ip("link add br0 type bridge")
    ip("link set more0 master br0")
    assert interfaces().count('device "more') == 1
    ip("link del more0")
    assert "more" not in interfaces()
    assert 'device "lower0"' in interfaces()


def test_one_that_is_renamed_is_muted_still(wired: Wired, muted: NewMacvlans) -> None:
    ip("link set lower0 down")
    ip("link set lower0 name other0")
    ip("link set other0 up")
    muted.look()
    assert 'device "other0"' in nft.run(f"list table {TABLE}")
    wired.come("other0")
    with wired.forgotten() as connection:
        sends(connection)
        assert not is_reset(connection)


@pytest.mark.parametrize("name", ['a"b', "lower*", "\N{LATIN SMALL LETTER U WITH DIAERESIS}0"])
def test_a_name_that_nft_would_misread_is_passed_over(wired: Wired, muted: NewMacvlans, name: str) -> None:
    ip(f"link add {name} type veth peer name more1")
    muted.look()
    assert name not in nft.run(f"list table {TABLE}")
    wired.come()
    with wired.forgotten() as connection:
        sends(connection)
        assert not is_reset(connection)


def test_it_ends_with_its_owner(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody renews what a helper that was killed had made, and then nothing is muted any more."""
    monkeypatch.setattr(muting, "_ARMED_S", 1)
    with wired.host.entered():
        muted = NewMacvlans()
        began = time.monotonic()
        wired.come()
        with wired.forgotten() as connection:
            connection.sendall(b"x")
            eventually(lambda: is_reset(connection), "it is reset", 30)
        assert time.monotonic() - began > 0.9
        muted.close()


def test_what_the_kernel_refuses_is_told(wired: Wired, muted: NewMacvlans) -> None:
    """Not an interface that has gone meanwhile, but a table that somebody has removed."""
    nft.run(f"delete table {TABLE}")
    ip("link add more0 type veth peer name more1")
    with pytest.raises(IsolationError):
        muted.look()
