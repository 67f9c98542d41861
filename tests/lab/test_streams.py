"""A numbered stream in both directions is moved; the judge is the peer's capture."""

from __future__ import annotations

import pytest
from harness import captures
from harness.captures import Capture, answers_to, directions
from harness.hosts import MOVERS
from harness.migrate import Ran, move
from harness.workloads import assert_streams, drive_numbered, serve_numbered

from migrate.lab import Lab

PORT = 7000
CONNECTIONS_EACH = 10
MOVES = 10


pytestmark = pytest.mark.usefixtures("clean")


def test_ten_moves(lab: Lab) -> None:
    pid = serve_numbered(lab.hosts["origin"], PORT)
    with Capture(lab.hosts["peer"], "eth0", f"tcp port {PORT}") as capture:
        client = drive_numbered(lab, PORT, CONNECTIONS_EACH)
        moves, silences = [], []
        for number in range(MOVES):
            before = client.ask()
            moves.append(move(lab, pid, start=MOVERS[number % 2]))
            assert moves[-1].report["destination_pid"] == pid
            assert moves[-1].report["connections"] == 2 * CONNECTIONS_EACH
            silences.append(assert_streams(client, before)["longest_silence_ms"])
    # Not before: a client that ends resets connections on which it has not read everything.
    last = client.stop()
    assert last["errors"] == []
    print("silences in ms:", silences)
    _judge_capture(lab, capture, moves)


def _judge_capture(lab: Lab, capture: Capture, moves: list[Ran]) -> None:
    packets = capture.packets()
    captures.assert_no_reset(packets)
    both = directions(packets)
    assert len(both) == 2 * 2 * CONNECTIONS_EACH
    ahead, again, mute = [], 0, 0
    for (stream, sender), ours in both.items():
        served = sender in (f"{lab.service.ipv4}.{PORT}", f"{lab.service.ipv6}.{PORT}")
        captures.assert_sequence_never_back(ours, answers_to(both, stream, sender))
        captures.assert_acknowledgements_never_back(ours)
        ahead.append(captures.assert_timestamps_go_on(ours))
        again += len(captures.sent_again(ours))
        mute += captures.assert_echoes_never_back(ours)
        if not served:
            continue
        assert len({packet.ttl for packet in ours}) == 1
        for moved in moves:
            last, first = captures.across(ours, moved)
            passed_ms = 1000 * (first.at - last.at)
            assert 0 <= captures.distance(first.tsval, last.tsval) <= passed_ms + 5
    print(f"{len(packets)} segments, {again} sent again, {mute} with TSecr 0")
    print(f"TSval at most {max(ahead):.1f} ms ahead")
