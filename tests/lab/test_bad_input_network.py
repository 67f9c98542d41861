"""Acceptance 4: connections and addresses that cannot be moved."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_input_bench import InputBench
from harness.hosts import in_network

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workloads"))
import odd

ELSEWHERE = "10.99.0.5"
SECOND = "10.77.1.101"


@pytest.fixture
def second(bench: InputBench) -> Iterator[str]:
    """One more service address."""
    with bench.address(bench.origin, SECOND):
        yield SECOND


def test_mptcp(bench: InputBench) -> None:
    if not Path("/proc/sys/net/mptcp/enabled").exists():
        pytest.skip("this kernel has no MPTCP")
    with bench.server("mptcp", protocol=odd.IPPROTO_MPTCP) as server:
        found = bench.refused(server)
    assert found.codes == {("socket", "origin")}
    found.must_say("origin", server.name, "Multipath TCP", "net.mptcp.enabled=0")


def test_kernel_tls(bench: InputBench) -> None:
    available = Path("/proc/sys/net/ipv4/tcp_available_ulp")
    if not available.exists() or "tls" not in available.read_text().split():
        pytest.skip("this kernel has no TLS")
    with bench.server("tls") as server:
        found = bench.refused(server)
    found.must_say("origin", server.name, "tls", "Switch kernel TLS off")


def test_tcp_md5(bench: InputBench) -> None:
    key = odd.md5_key(bench.service)

    def sign(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, odd.TCP_MD5SIG, key)

    with bench.server(f"md5={bench.peer.ipv4}", prepare=sign) as server:
        found = bench.refused(server)
    assert found.codes == {("socket", "origin")}
    found.must_say("origin", server.name, "TCP-MD5", "without TCP-MD5")


def test_urgent_data(bench: InputBench) -> None:
    with (
        bench.server(f"deaf={bench.service}:6940") as server,
        bench.connect(bench.service, 6940) as connection,
    ):
        connection.sendall(b"ab")
        connection.send(b"!", socket.MSG_OOB)
        found = bench.refused(server)
    assert found.codes == {("socket", "origin")}
    found.must_say("origin", f"{bench.service}:6940 - ", "urgent data", "Try again when")


def test_peers_on_either_host(bench: InputBench) -> None:
    with (
        bench.odd(bench.destination, "10.77.1.2:6941"),
        bench.odd(bench.origin, "127.0.0.1:6942"),
        bench.server(f"connect={bench.service}>10.77.1.2:6941", "connect=127.0.0.1>127.0.0.1:6942") as server,
    ):
        found = bench.refused(server)
    assert found.codes == {("peer-on-destination", "destination"), ("peer-on-origin", "origin")}
    found.must_say("destination", "10.77.1.2:6941 is on the destination itself", "third host")
    found.must_say("origin", "127.0.0.1:6942", "not moved", "Name a parent of both")


def test_port_is_taken(bench: InputBench) -> None:
    with bench.server() as server, bench.odd(bench.destination, f"0.0.0.0:{server.port}") as pid:
        found = bench.refused(server)
    assert found.codes == {("port-taken", "destination")}
    found.must_say("destination", f"port {server.port} is taken by", f"(PID {pid})", "ss -tanp")


# --- addresses -------------------------------------------------------------------------------------------


def test_address_of_the_host(bench: InputBench) -> None:
    """The one that ssh uses, and the host itself."""
    with bench.server(address=bench.origin.ipv4) as server:
        found = bench.refused(server)
    assert found.codes == {("address-of-host", "origin")}
    found.must_say(
        "origin", "10.77.1.1", "is the address of origin itself", "ip addr add ADDRESS/24 dev eth0"
    )


def test_address_of_another_network(bench: InputBench) -> None:
    with bench.address(bench.origin, ELSEWHERE), bench.server(f"listen={ELSEWHERE}:6950") as server:
        found = bench.refused(server)
    assert found.codes == {("address-no-network", "destination")}
    found.must_say("destination", f"network of the service address {ELSEWHERE}", "same network")


def test_address_of_two_processes(bench: InputBench) -> None:
    with bench.server() as server, bench.odd(bench.origin, f"{bench.service}:6951") as pid:
        found = bench.refused(server)
    assert found.codes == {("address-shared", "origin")}
    found.must_say("origin", f"{bench.service}:6951", f"(PID {pid})", "End that process")


def test_address_is_there_already(bench: InputBench, second: str) -> None:
    with bench.server(f"listen={second}:6952") as server, bench.address(bench.destination, second):
        found = bench.refused(server)
    assert found.codes == {("address-taken", "destination")}
    found.must_say("destination", f"{second} is there already", f"ip addr del {second}/24 dev eth0")


def test_address_is_the_destinations_own(bench: InputBench) -> None:
    with (
        bench.address(bench.origin, "10.77.1.2/32", device="lo"),
        bench.server("listen=10.77.1.2:6953") as server,
    ):
        # Now the origin cannot reach the destination by that address; by the other one it can.
        found = bench.refused(server, host="fd77:1::2")
    found.must_say("destination", "10.77.1.2 is there already", "Choose another host")


def test_address_that_a_route_needs(bench: InputBench) -> None:
    route = ["10.55.0.0/16", "via", "10.77.1.254", "src", bench.service]
    with bench.server() as server:
        bench.origin.exec(["ip", "route", "add", *route])
        try:
            found = bench.refused(server, "--check")
        finally:
            bench.origin.exec(["ip", "route", "del", *route])
    assert found.codes == {("address-needed", "origin")}
    found.must_say("origin", f"use {bench.service} as their source: 10.55.0.0/16", "Change those routes")


# --- --address -------------------------------------------------------------------------------------------


def test_wildcard_without_a_client(bench: InputBench) -> None:
    with bench.server(bound="0.0.0.0") as server:
        assert len(bench.migrate("--check", server.pid, "destination").said) == 1  # the longest gap
        server.connection.close()
        bench.wait_for_no_connection(server)
        found = bench.migrate(server.pid, "destination")
        assert (found.status, found.codes) == (3, {("address-unknown", "origin")})
        found.must_say("origin", f"listens on *:{server.port}", "--address ADDR", "--no-address")
        found = bench.migrate("--check", server.pid, "destination", "--no-address")
        assert found.status == 0
        note, gap = found.report["notes"]
        assert "--max-gap" in gap
        assert f"it listens on *:{server.port}" in note
        found = bench.migrate("--check", server.pid, "destination", "--address", bench.service)
        assert len(found.said) == 1


def test_address_moves_with_its_process(bench: InputBench, second: str) -> None:
    """Nobody is connected to it: the ones who come later find the process on the destination."""
    with bench.server(bound="0.0.0.0") as server:

        def elsewhere() -> None:
            later = bench.connect(second, server.port)
            server.serves(later)

        bench.moved(server, "--address", second, "--address", second, then=elsewhere, addresses=(second,))


def test_addresses_that_cannot_move(bench: InputBench) -> None:
    addresses = ("10.77.1.66", bench.origin.ipv4, bench.origin.ipv6)
    with bench.server() as server:
        words = [word for address in addresses for word in ("--address", address)]
        found = bench.refused(server, "--check", *words)
    assert found.codes == {("address-missing", "origin"), ("address-of-host", "origin")}
    found.must_say("origin", "10.77.1.66, which --address names, is not an address", "ip -brief addr")
    for address in addresses[1:]:
        found.must_say("origin", f"{address}, which --address names, is the address of origin itself")


def test_in_network_is_not_this_one(bench: InputBench) -> None:
    """The judge itself: it looks at the host's network, not at the machine's."""
    assert in_network(bench.origin, lambda: len(socket.if_nameindex())) == 2
