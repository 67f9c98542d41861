"""A numbered stream in both directions is moved; the judge is the peer's capture."""

from __future__ import annotations

import pytest
from harness.captures import Capture
from harness.hosts import MOVERS
from harness.migrate import Ran, move
from harness.pcap import Packet, distance
from harness.tcp_rules import faults
from harness.workloads import assert_streams, drive_numbered, serve_numbered

from migrate.lab import Lab
from tcpcp.endpoint import isolation

PORT = 7000
CONNECTIONS_EACH = 10
MOVES = 10


pytestmark = pytest.mark.usefixtures("clean")


def test_ten_moves(lab: Lab) -> None:
    _moved(lab, MOVES)


def test_moves_to_a_host_that_drops_what_is_fed(lab: Lab) -> None:
    """No connection is taught its round-trip time there, and nothing of what it would be taught by is seen."""
    hosts = [lab.hosts[name] for name in MOVERS]
    rule = f"iif lo meta mark {isolation.MARK} drop"
    chain = f"chain c {{ type filter hook input priority -400; {rule}; }}"
    for host in hosts:
        host.exec(["nft", f"table inet losing {{ {chain}; }}"])
    try:
        _moved(lab, 2, known="it echoes no timestamp")  # which is fed, too
    finally:
        for host in hosts:
            host.exec(["nft", "delete table inet losing"])


def _moved(lab: Lab, times: int, known: str = "") -> None:
    """:param known: a fault that is none."""
    pid = serve_numbered(lab.hosts["origin"], PORT)
    with Capture(lab.hosts["peer"], "eth0", f"tcp port {PORT}") as capture:
        client = drive_numbered(lab, PORT, CONNECTIONS_EACH)
        moves, silences = [], []
        for number in range(times):
            before = client.ask()
            moves.append(move(lab, pid, start=MOVERS[number % 2]))
            assert moves[-1].report["destination_pid"] == pid
            assert moves[-1].report["connections"] == 2 * CONNECTIONS_EACH
            silences.append(assert_streams(client, before)["longest_silence_ms"])
    # Not before: a client that ends resets connections on which it has not read everything.
    last = client.stop()
    assert last["errors"] == []
    print("silences in ms:", silences)
    _judge_capture(lab, capture, moves, known)


def _judge_capture(lab: Lab, capture: Capture, moves: list[Ran], known: str) -> None:
    judged = capture.connections()
    assert len(judged) == 2 * CONNECTIONS_EACH
    assert [fault for fault in faults(judged) if not (known and fault.endswith(known))] == []
    sides = [side for one in judged for side in one.sides.values()]
    assert all(side.packets for side in sides)
    served = {(lab.service.ipv4, PORT), (lab.service.ipv6, PORT)}
    for one in judged:
        (ours,) = served & set(one.ends)
        sent = one.sent_by(ours)
        for moved in moves:
            last, first = across(sent, moved)
            passed_ms = 1000 * (first.at_s - last.at_s)
            assert 0 <= distance(first.tsval, last.tsval) <= passed_ms + 5
    packets, again = sum(side.packets for side in sides), sum(side.retransmitted for side in sides)
    print(f"{packets} segments, {again} sent again")
    print(f"TSval at most {max(side.ahead_ms for side in sides):.1f} ms ahead")


def across(packets: list[Packet], moved: Ran) -> tuple[Packet, Packet]:
    """The two segments of one direction around the longest silence while *moved* was made."""
    during = [packet for packet in packets if moved.began <= packet.at_s <= moved.ended]
    pairs = zip(during, during[1:], strict=False)
    return max(pairs, key=lambda pair: pair[1].at_s - pair[0].at_s)
