"""A peer that resets the connection just after it goes on is heard, though the last it has sent fell into the gap.

Its reset has the number of what it would send next, which is not the one that we expect: we ask whether it is
meant (RFC 5961 section 3.2), and what is answered to that ends the connection. Such questions a socket asks once in
half a second (net.ipv4.tcp_invalid_ratelimit), and an answer to an empty segment that lies outside its window is
one of them: so the peer must be woken by another one.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from netns import Hosts, eventually, ip
from passing import deaf, wait_state

import tcpcp
from tcpcp.criu import stages
from tcpcp.endpoint import isolation, reader, repair_mode, untracked
from tcpcp.endpoint.calls import flow_of
from tcpcp.endpoint.isolation import Isolation
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import State

#: For how long the peer's question may be kept from us, s: net.ipv4.tcp_invalid_ratelimit.
LIMIT_S = 0.5
RESETS = 8
PATIENCE_S = 10
#: States in which the peer can send what is lost in the gap.
STATES = (State.ESTABLISHED, State.FIN_WAIT1, State.FIN_WAIT2)


@dataclass
class Pair:
    """:ivar sock: our end. :ivar peer: the other."""

    sock: socket.socket
    peer: socket.socket


Way = Callable[[Hosts, Sequence[Pair], Callable[[], None]], None]


@pytest.fixture
def patient(hosts: Hosts) -> Iterator[Hosts]:
    """Neither end repeats itself while the test runs, but when it is asked to; and half a second is 20."""
    for namespace, device, others in (
        (hosts.there, "there0", hosts.here_ip.values()),
        (hosts.here, "here0", hosts.there_ip.values()),
    ):
        with namespace.entered():
            for other in others:
                ip(f"route add {other} dev {device} rto_min 20s")
            Path("/proc/sys/net/ipv4/tcp_invalid_ratelimit").write_text("20000")
    yield hosts


def pairs(hosts: Hosts, kind: str, state: State, count: int = RESETS) -> list[Pair]:
    """Connections whose end here is in *state*."""
    made = [Pair(*hosts.connect(kind)) for _ in range(count)]
    if state is State.FIN_WAIT1:
        with deaf(hosts.there):
            for one in made:
                one.sock.shutdown(socket.SHUT_WR)
    elif state is State.FIN_WAIT2:
        for one in made:
            one.sock.shutdown(socket.SHUT_WR)
    for one in made:
        wait_state(one.sock, state)
    return made


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def reset_in_turn(socks: Sequence[socket.socket]) -> None:
    """Each some time within :data:`LIMIT_S` from now."""
    begun, chance = time.monotonic(), Random(4)
    for sock, at in zip(socks, sorted(chance.uniform(0, LIMIT_S) for _ in socks), strict=True):
        time.sleep(max(0, begun + at - time.monotonic()))
        reset(sock)


def unheard(socks: Sequence[socket.socket], within_s: float = PATIENCE_S) -> list[socket.socket]:
    """Those of *socks* that have not heard of a reset by then; asked of a socket, which forgets it, once."""
    waiting = {one.fileno(): one for one in socks}
    poll = select.poll()
    for number in waiting:
        poll.register(number, 0)
    deadline = time.monotonic() + within_s
    while waiting and (left := deadline - time.monotonic()) > 0:
        for number, _ in poll.poll(left * 1000):
            poll.unregister(number)
            assert waiting.pop(number).getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return list(waiting.values())


def got(hosts: Hosts, pairs_: Sequence[Pair], in_the_gap: Callable[[], None]) -> None:
    socks = [one.sock for one in pairs_]
    tcpcp.get_many(socks)
    in_the_gap()
    tcpcp.activate_many(socks)


def created(hosts: Hosts, pairs_: Sequence[Pair], in_the_gap: Callable[[], None]) -> None:
    socks = [one.sock for one in pairs_]
    icis = tcpcp.get_many(socks)
    in_the_gap()
    tcpcp.release_many(socks)
    made = tcpcp.create_many(icis)
    for one, sock in zip(pairs_, made, strict=True):
        one.sock = sock
    tcpcp.activate_many(made)


def by_criu(hosts: Hosts, pairs_: Sequence[Pair], in_the_gap: Callable[[], None]) -> None:
    """As the driver does on the destination: the sockets are out of repair mode, and woken afterwards."""
    socks = [one.sock for one in pairs_]
    icis = tcpcp.get_many(socks)
    in_the_gap()
    tcpcp.resume_many(socks)
    holders = {ici.tag: (os.getpid(), sock.fileno()) for ici, sock in zip(icis, socks, strict=True)}
    stages.wake(icis, holders)


def back_at_the_origin(hosts: Hosts, pairs_: Sequence[Pair], in_the_gap: Callable[[], None]) -> None:
    """As the driver does when a migration came to nothing."""
    filter_ = Isolation("back")
    filter_.hold([flow_of(one.sock) for one in pairs_])
    for one in pairs_:
        tcp_repair.set_repair(one.sock, tcp_repair.ON)
    in_the_gap()
    filter_.release()
    with untracked.while_fed() as unseen:
        for one in pairs_:
            assert stages.go_on(one.sock, unseen=unseen)


WAYS: dict[str, Way] = {
    "got": got,
    "created": created,
    "by_criu": by_criu,
    "back_at_the_origin": back_at_the_origin,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
@pytest.mark.parametrize("kind", ("v4", "v6", "mapped"))
def test_of_a_peer_whose_last_bytes_were_lost(patient: Hosts, kind: str, state: State, way: str) -> None:
    made = pairs(patient, kind, state)

    def in_the_gap() -> None:
        for one in made:
            one.peer.sendall(b"lost")

    with patient.here.entered():
        WAYS[way](patient, made, in_the_gap)
    reset_in_turn([one.peer for one in made])
    assert unheard([one.sock for one in made]) == []


#: What connection tracking calls invalid neither leaves nor arrives.
NOTHING_INVALID = """
table inet test {
    chain in { type filter hook input priority 0; ct state invalid drop; }
    chain out { type filter hook output priority 0; ct state invalid drop; }
}
"""
ISOLATING = f"""
table inet caller {{
    chain in {{ type filter hook input priority -400; meta mark != {isolation.MARK} meta l4proto tcp drop; }}
    chain out {{ type filter hook output priority -400; meta mark != {isolation.MARK} meta l4proto tcp drop; }}
}}
"""


def isolated_by_the_caller(hosts: Hosts, pairs_: Sequence[Pair], in_the_gap: Callable[[], None]) -> None:
    """By a filter that knows nothing of connection tracking."""
    run(ISOLATING)
    icis = [reader.read(one.sock) for one in pairs_]
    in_the_gap()
    for one in pairs_:
        repair_mode.discard(one.sock)
    made = tcpcp.create_many(icis, isolate=False)
    subprocess.run(["nft", "delete table inet caller"], check=True)
    for one, sock in zip(pairs_, made, strict=True):
        one.sock = sock
    tcpcp.activate_many(made)


#: Notes which ports have acknowledged.
HEARING = """
table inet hearing {
    set ports { type inet_service; flags dynamic; size 65535; }
    chain in { type filter hook input priority 0; tcp flags == ack add @ports { tcp sport }; }
}
"""


def run(rules: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


def heard(hosts: Hosts) -> set[int]:
    """The ports that the peer has heard of."""
    with hosts.there.entered():
        command = ["nft", "-j", "list set inet hearing ports"]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return set(json.loads(text)["nftables"][1]["set"].get("elem", ()))


@pytest.mark.parametrize("way", (*WAYS, "isolated_by_the_caller"))
@pytest.mark.parametrize("kind", ("v4", "v6"))
def test_where_connections_are_tracked(patient: Hosts, kind: str, way: str) -> None:
    """The peer is woken, where the kernel does not probe, and heard when it resets."""
    with patient.here.entered():
        run(NOTHING_INVALID)
    made = pairs(patient, kind, State.FIN_WAIT2)
    ports = {one.sock.getsockname()[1] for one in made}

    def in_the_gap() -> None:
        for one in made:
            one.peer.sendall(b"lost")
        with patient.there.entered():
            run(HEARING)

    with patient.here.entered():
        {**WAYS, "isolated_by_the_caller": isolated_by_the_caller}[way](patient, made, in_the_gap)
        assert "tcpcp-" not in subprocess.check_output(["nft", "list", "tables"], text=True)
    eventually(lambda: heard(patient) == ports, "all peers are woken")
    reset_in_turn([one.peer for one in made])
    assert unheard([one.sock for one in made]) == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_it_is_no_sign_of_anything_lost(patient: Hosts, state: State, way: str) -> None:
    """The peer is not told that it has sent something twice, and acknowledgements are delayed as they were."""
    made = pairs(patient, "v4", state)
    for one in made:
        one.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    with patient.here.entered():
        before = {one.peer: quick_acks(one.sock) for one in made}
        WAYS[way](patient, made, lambda: None)
    for one in made:
        assert quick_acks(one.sock) == before[one.peer] == 0
    here, there = patient.counters(patient.here), patient.counters(patient.there)
    assert (here["TcpExtDelayedACKLost"], here["TcpExtTCPDSACKOldSent"], there["TcpExtTCPDSACKRecv"]) == (
        0,
        0,
        0,
    )
    assert here["TcpExtTCPACKSkippedSeq"] == 0


def quick_acks(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)


@pytest.mark.parametrize("state", (State.ESTABLISHED, State.CLOSE_WAIT), ids=lambda state: state.name)
@pytest.mark.parametrize("way", (got, created))
def test_our_own_reset_where_the_last_bytes_were_lost(patient: Hosts, way: Way, state: State) -> None:
    """The kernel's probe makes the peer give the one answer that it gives in half a second, so it asks nothing.

    Half-closed, no such probe is sent. Who was not heard is when the peer sends something.
    """
    made = pairs(patient, "v4", State.ESTABLISHED)
    if state is State.CLOSE_WAIT:
        for one in made:
            one.peer.shutdown(socket.SHUT_WR)
            wait_state(one.sock, state)
    with patient.here.entered():
        with deaf(patient.there):
            for one in made:
                one.sock.sendall(b"lost")
        before = patient.counters(patient.there)["TcpInSegs"]
        way(patient, made, lambda: None)
    probes = len(made) if state is State.ESTABLISHED else 0
    eventually(lambda: patient.counters(patient.there)["TcpInSegs"] >= before + len(made) + probes, "woken")
    reset_in_turn([one.sock for one in made])
    peers = [one.peer for one in made]
    if state is State.CLOSE_WAIT:
        assert unheard(peers) == []
        return
    missed = unheard(peers, 2 * LIMIT_S)
    assert missed
    for one in missed:
        one.sendall(b"are you there?")
    assert unheard(missed) == []
