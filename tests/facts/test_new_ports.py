"""Which resets a new port of a bridge does not let out, and for how long."""

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
from tcpcp.criu.new_ports import NewPorts
from tcpcp.kernel import nft


@dataclass
class Bridged:
    """A host with a bridge, to which a peer and a container are connected: 10.8.0.1 and 10.8.0.2."""

    host: Namespace
    peer: Namespace
    container: Namespace

    def connect_to_bridge(self, port: str, far_end: Namespace, address: str) -> None:
        with self.host.entered():
            ip(f"link add {port} type veth peer name eth0 netns {far_end.path}")
            ip(f"link set {port} master br0 up")
        with far_end.entered():
            ip("link set eth0 up")
            ip(f"addr add {address}/24 dev eth0")

    def forgotten(self) -> socket.socket:
        """The peer's end of a connection of which the container knows nothing any more."""
        return forgotten(self.peer, self.container, "10.8.0.2")


@pytest.fixture
def bridged() -> Iterator[Bridged]:
    found = Bridged(Namespace(), Namespace(), Namespace())
    with found.host.entered():
        ip("link add br0 type bridge")
        ip("link set br0 up")
    found.connect_to_bridge("peer0", found.peer, "10.8.0.1")
    yield found
    nft.close()
    for one in (found.host, found.peer, found.container):
        one.close()


@pytest.fixture
def ports(bridged: Bridged) -> Iterator[NewPorts]:
    with bridged.host.entered():
        made = NewPorts()
        yield made
        made.close()


def test_a_port_that_is_new_sends_no_reset(bridged: Bridged, ports: NewPorts) -> None:
    bridged.connect_to_bridge("veth0", bridged.container, "10.8.0.2")
    ports.look()
    with bridged.forgotten() as connection:
        sends(connection)
        assert not is_reset(connection)


def test_whoever_connects_is_refused_as_ever(bridged: Bridged, ports: NewPorts) -> None:
    bridged.connect_to_bridge("veth0", bridged.container, "10.8.0.2")
    ports.look()
    with bridged.peer.entered(), pytest.raises(ConnectionRefusedError):
        socket.create_connection(("10.8.0.2", 81), 10)


def test_it_is_muted_before_anybody_looks(bridged: Bridged, ports: NewPorts) -> None:
    """The kernel does it: from birth, whatever the helper is doing just then."""
    bridged.connect_to_bridge("veth0", bridged.container, "10.8.0.2")
    with bridged.forgotten() as connection:
        sends(connection)
        assert not is_reset(connection)


def test_a_port_is_new_for_some_time_only(
    bridged: Bridged, ports: NewPorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridged.connect_to_bridge("veth0", bridged.container, "10.8.0.2")
    ports.look()
    monkeypatch.setattr(muting, "NEW_S", 0)
    ports.tick()
    with bridged.forgotten() as connection:
        connection.sendall(b"x")
        eventually(lambda: is_reset(connection), "it is reset")


def test_ports_that_were_there_are_not_new(bridged: Bridged) -> None:
    bridged.connect_to_bridge("veth0", bridged.container, "10.8.0.2")
    with bridged.host.entered():
        ports = NewPorts()
        try:
            with bridged.forgotten() as connection:
                connection.sendall(b"x")
                eventually(lambda: is_reset(connection), "it is reset")
        finally:
            ports.close()


def test_it_ends_with_its_owner(bridged: Bridged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody renews what a helper that was killed had made, and then nothing is muted any more."""
    monkeypatch.setattr(muting, "_ARMED_S", 1)
    with bridged.host.entered():
        ports = NewPorts()
        began = time.monotonic()
        bridged.connect_to_bridge("veth0", bridged.container, "10.8.0.2")
        with bridged.forgotten() as connection:
            connection.sendall(b"x")
            eventually(lambda: is_reset(connection), "it is reset", 30)
        assert time.monotonic() - began > 0.9
        ports.close()
