"""The three ways of choosing the local port (paper 2.1), and another address; the gateway translates.

A translation by connection tracking cannot take over a connection whose SYN it has not seen under that rule;
this one is stateless: nft rewrites addresses and ports of each packet, and the checksums along with them.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from drain import Drain
from harness.captures import Capture
from harness.hosts import connect, ss
from harness.tcp_rules import resets
from passing_lab import (
    Passer,
    content,
    hand_over,
    passers,
    service_on_both,
    switch,
)

from migrate.lab import Lab

pytestmark = pytest.mark.usefixtures("no_filter_left")

PORT = 7000
BOUND_PORT = 7300
MORE_BYTES = 200_000


@contextlib.contextmanager
def translated(lab: Lab, peer: tuple[str, int], old: tuple[str, int], new: tuple[str, int]) -> Iterator[None]:
    """In the gateway: between *peer* and itself, the connection's other end is *old* to it and *new* to us."""
    family = "ip6" if ":" in peer[0] else "ip"
    to_us = f"{family} saddr {peer[0]} tcp sport {peer[1]} {family} daddr {old[0]} tcp dport {old[1]}"
    from_us = f"{family} saddr {new[0]} tcp sport {new[1]} {family} daddr {peer[0]} tcp dport {peer[1]}"
    rules = f"""
    table inet passed {{
        chain before_routing {{
            type filter hook prerouting priority raw;
            {to_us} notrack {family} daddr set {new[0]} tcp dport set {new[1]}
            {from_us} notrack
        }}
        chain after_routing {{
            type filter hook postrouting priority srcnat;
            {from_us} {family} saddr set {old[0]} tcp sport set {old[1]}
        }}
    }}"""
    gateway = lab.hosts["gateway"]
    gateway.exec(["nft", rules])
    yield
    gateway.exec(["nft", "delete table inet passed"])


class Connected:
    """One connection from the peer to the service on origin, with bytes waiting at both ends."""

    def __init__(self, lab: Lab, origin: Passer, ipv6: bool) -> None:
        self.old = (lab.service.ipv6 if ipv6 else lab.service.ipv4, PORT)
        origin.ask("listen", address=self.old[0], port=PORT)
        self.sock = connect(lab.hosts["peer"], *self.old)
        self.peer = self.sock.getsockname()[:2]
        self.number = origin.ask("accept")
        self.sock.sendall(content("waiting", 5_000))
        assert origin.ask("send", number=self.number, name="first", size_bytes=5_000) == 5_000

    def goes_on(self, destination: Passer) -> None:
        """Both sides send the rest, close, and have everything."""
        destination.tell("finish", more_bytes=MORE_BYTES, mute=[])
        reader = Drain(self.sock)
        self.sock.sendall(content("rest", MORE_BYTES))
        self.sock.shutdown(1)
        expected = hashlib.sha256(content("waiting", 5_000) + content("rest", MORE_BYTES)).hexdigest()
        assert destination.answer() == [{"received": 5_000 + MORE_BYTES, "digest": expected}]
        reader.finished(content("first", 5_000) + content(f"more {self.number}", MORE_BYTES), "the peer")
        self.sock.close()


def pass_translated(lab: Lab, ipv6: bool, how: dict[str, Any], new_ip: str) -> int:
    """Pass one connection to another end; its port there."""
    with (
        Capture(lab.hosts["peer"], "eth0", f"tcp port {PORT}") as capture,
        passers(lab) as (origin, destination),
    ):
        connected = Connected(lab, origin, ipv6)
        _, (port,) = hand_over(origin, destination, **how)
        with translated(lab, connected.peer, connected.old, (new_ip, port)):
            origin.ask("release")
            destination.ask("activate")
            (found,) = ss(lab.hosts["destination"], f"sport = {port} and dport = {connected.peer[1]}")
            assert found["state"] == "ESTAB"
            assert found["local"] in (f"{new_ip}:{port}", f"[{new_ip}]:{port}")
            connected.goes_on(destination)
    packets = capture.packets()
    assert resets(packets) == []
    # The peer has only ever seen the one it connected to.
    assert {packet.sender for packet in packets} == {connected.old, connected.peer}
    return port


@pytest.mark.parametrize("ipv6", [False, True], ids=["v4", "v6"])
def test_same_port(lab: Lab, ipv6: bool) -> None:
    """No translation: the destination has the address, and the gateway a route to it."""
    with service_on_both(lab), passers(lab) as (origin, destination):
        connected = Connected(lab, origin, ipv6)
        _, (port,) = hand_over(origin, destination)
        assert port == PORT
        switch(lab, "destination")
        origin.ask("release")
        destination.ask("activate")
        connected.goes_on(destination)


@pytest.mark.parametrize("ipv6", [False, True], ids=["v4", "v6"])
def test_any_free_port_at_another_address(lab: Lab, ipv6: bool) -> None:
    host = lab.hosts["destination"]
    new_ip = host.ipv6 if ipv6 else host.ipv4
    assert pass_translated(lab, ipv6, {"address": new_ip, "any_port": True}, new_ip) != PORT


@pytest.mark.parametrize("ipv6", [False, True], ids=["v4", "v6"])
def test_same_port_at_another_address(lab: Lab, ipv6: bool) -> None:
    host = lab.hosts["destination"]
    new_ip = host.ipv6 if ipv6 else host.ipv4
    assert pass_translated(lab, ipv6, {"address": new_ip}, new_ip) == PORT


@pytest.mark.parametrize("ipv6", [False, True], ids=["v4", "v6"])
def test_a_socket_bound_beforehand(lab: Lab, ipv6: bool) -> None:
    """The port in the ICI is ignored, and its address too, which does not exist here."""
    host = lab.hosts["destination"]
    new_ip = host.ipv6 if ipv6 else host.ipv4
    assert pass_translated(lab, ipv6, {"bind": [new_ip, BOUND_PORT]}, new_ip) == BOUND_PORT
