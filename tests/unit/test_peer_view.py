"""The judge is judged: a healthy conversation passes, and each rule finds the capture that breaks it."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from harness import peer_view
from harness.pcap import ACK, FIN, PSH, RST, SYN, Unreadable

SERVICE, PEER = "10.0.0.1", "10.0.0.9"
MOVE_S = 1000.5
SCALE = 7


@dataclass(frozen=True)
class P:
    """A packet to be captured; *at* in seconds, 1000 is the beginning. Sent by the service unless *up*."""

    at: float
    seq: int
    ack: int
    data: bytes = b""
    flags: int = ACK
    up: bool = False
    window: int = 512
    ttl: int = 64
    tos: int = 2
    df: bool = True
    ts: tuple[int, int] | None = (0, 0)
    syn_options: bytes = b""


def options(packet: P) -> bytes:
    found = packet.syn_options
    if packet.ts is not None:
        found += b"\1\1\x08\x0a" + struct.pack("!II", *packet.ts)
    return found + bytes(-len(found) % 4)


def segment(packet: P) -> bytes:
    extra = options(packet)
    ports = (40000, 80) if packet.up else (80, 40000)
    offset = (20 + len(extra)) // 4 << 4
    head = struct.pack(
        "!HHIIBBHHH", *ports, packet.seq, packet.ack, offset, packet.flags, packet.window, 0, 0
    )
    return head + extra + packet.data


def ipv4(packet: P) -> bytes:
    body = segment(packet)
    ends = [socket.inet_aton(one) for one in ((PEER, SERVICE) if packet.up else (SERVICE, PEER))]
    fragment = 0x4000 if packet.df else 0
    head = (0x45, packet.tos, 20 + len(body), 7, fragment, packet.ttl, 6, 0)
    return struct.pack("!BBHHHBBH4s4s", *head, *ends) + body


def ipv6(packet: P) -> bytes:
    body = segment(packet)
    ends = [socket.inet_pton(socket.AF_INET6, one) for one in ("fd00::1", "fd00::9")]
    ends = ends[::-1] if packet.up else ends
    head = struct.pack("!IHBB16s16s", 6 << 28 | packet.tos << 20, len(body), 6, packet.ttl, *ends)
    return head + body


def pcap(frames: list[tuple[float, bytes]], link: int = 101, order: str = "<") -> bytes:
    out = struct.pack(order + "IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, link)
    for at, frame in frames:
        out += struct.pack(order + "IIII", int(at), round(at % 1 * 1e6), len(frame), len(frame)) + frame
    return out


SYN_OPTIONS = b"\2\4\5\xb4" + b"\3\3" + bytes([SCALE]) + b"\1"


def healthy() -> list[P]:
    """Handshake, a request, three full segments and an end of them, a move, the same again, FINs."""
    base, peer = 2**32 - 2000, 5000  # the service's numbers wrap
    packets = [
        P(1000.000, peer, 0, flags=SYN, up=True, window=64240, ts=(100, 0), syn_options=SYN_OPTIONS),
        P(1000.001, base, peer + 1, flags=SYN | ACK, window=65160, ts=(900, 100), syn_options=SYN_OPTIONS),
        P(1000.002, peer + 1, base + 1, up=True, ts=(101, 900)),
    ]
    s, p = base + 1, peer + 1
    for at, tick in ((1000.1, 200), (1000.6, 700)):
        packets.append(P(at, p, s % 2**32, b"ask", ACK | PSH, True, ts=(tick, 900 if tick == 200 else 1000)))
        p += 3
        for number in range(4):
            last = number == 3
            body = bytes([number]) * (1448 if not last else 100)
            packets.append(
                P(
                    at + 0.001 * (number + 1),
                    s % 2**32,
                    p,
                    body,
                    ACK | PSH if last else ACK,
                    ts=(tick + 800, tick),
                )
            )
            s += len(body)
        packets.append(P(at + 0.006, p, s % 2**32, up=True, ts=(tick + 2, tick + 800)))
    packets.append(P(1000.7, s % 2**32, p, flags=ACK | FIN, ts=(1600, 702)))
    packets.append(P(1000.701, p, (s + 1) % 2**32, flags=ACK | FIN, up=True, ts=(800, 1600)))
    packets.append(P(1000.702, (s + 1) % 2**32, p + 1, ts=(1601, 800)))
    return packets


#: Places in healthy().
DATA, ACKED, DATA_AFTER, ACKED_AFTER = 5, 8, 10, 14


def judged(
    tmp_path: Path, packets: list[P], moves: tuple[float, ...] = (MOVE_S,), **limits: Any
) -> list[str]:
    path = tmp_path / "capture.pcap"
    path.write_bytes(pcap([(one.at, ipv4(one)) for one in packets]))
    view = peer_view.judge(path, moves, **limits)
    faults = [fault for pair in view["connections"] for row in pair for fault in row["faults"]]
    assert view["ok"] == (not faults)
    return faults


def changed(index: int, **fields: Any) -> list[P]:
    packets = healthy()
    packets[index] = replace(packets[index], **fields)
    return packets


def inserted(index: int, **fields: Any) -> list[P]:
    """A changed copy of packet *index* behind it."""
    packets = healthy()
    packets.insert(index + 1, replace(packets[index], **fields))
    return packets


def test_a_healthy_conversation(tmp_path: Path) -> None:
    assert judged(tmp_path, healthy()) == []


NEXT = healthy()[DATA_AFTER + 1].seq
BROKEN = {
    "a reset": inserted(DATA_AFTER, flags=RST, data=b""),
    "from before the connection's first": inserted(DATA, seq=healthy()[1].seq - 5, data=b""),
    "sequence number went back": inserted(ACKED - 1, seq=healthy()[DATA].seq + 10, data=b""),
    "48 bytes were never sent, the first at relative 5845": changed(DATA_AFTER, data=b"\0" * 1400),
    "other content than before at relative 1": inserted(DATA, data=b"!" * 20, seq=healthy()[4].seq),
    "acknowledgement went back": inserted(DATA_AFTER, ack=5002, data=b"", seq=NEXT),
    "it acknowledges": changed(ACKED_AFTER, ack=healthy()[ACKED_AFTER].ack + 1),
    "right edge went back by 12800": inserted(DATA_AFTER, window=412, data=b"", seq=NEXT),
    "its timestamp went back": changed(DATA_AFTER, ts=(999, 700)),
    "the timestamp it echoes went back": changed(DATA_AFTER, ts=(1500, 150)),
    "it echoes no timestamp": changed(DATA_AFTER, ts=(1500, 0)),
    "it echoes timestamp 701": changed(DATA_AFTER + 3, ts=(1504, 701)),
    "no timestamp": changed(DATA_AFTER, ts=None),
    "TTL changed": changed(DATA_AFTER, ttl=63),
    "DF changed": changed(DATA_AFTER, df=False),
    "DSCP changed": changed(DATA_AFTER, tos=0x10 | 2),
    "ECN changed": changed(DATA_AFTER, tos=0),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_each_rule_finds_its_fault_and_no_other(tmp_path: Path, fault: str) -> None:
    faults = judged(tmp_path, BROKEN[fault])
    assert [fault in one for one in faults] == [True]


def test_segment_size(tmp_path: Path) -> None:
    """The data after the move in 524-byte segments: what a restored connection is known for."""
    packets = []
    for one in healthy():
        if one.at < MOVE_S or len(one.data) < 1448:
            packets.append(one)
            continue
        for start in range(0, 1448, 524):
            part = one.data[start : start + 524]
            packets.append(replace(one, seq=(one.seq + start) % 2**32, data=part))
    assert judged(tmp_path, packets) == ["segment size changed: 1448 -> 524 bytes"]
    assert judged(tmp_path, packets, moves=()) == []


def test_without_moves_a_mark_must_stay_the_same(tmp_path: Path) -> None:
    assert "TTL changed" in judged(tmp_path, changed(DATA_AFTER, ttl=63), ())[0]


def test_what_endpoints_may_do(tmp_path: Path) -> None:
    """A retransmission, a window probe, a keepalive, congestion experienced, a window rounded down."""
    packets = healthy()
    data = packets[DATA]
    probe = replace(packets[ACKED + 1], up=False, flags=ACK)
    seq, ack = (packets[ACKED].ack - 1) % 2**32, packets[ACKED + 1].seq
    probe = replace(probe, at=1000.55, seq=seq, ack=ack, data=b"", ts=(1500, 202))
    keepalive = replace(probe, data=bytes([3]))
    packets[DATA_AFTER + 1] = replace(packets[DATA_AFTER + 1], ts=(1500, 700))
    for index in range(DATA_AFTER, DATA_AFTER + 4):
        packets[index] = replace(packets[index], ts=(1500, 700), tos=3)
    packets[DATA_AFTER + 4] = replace(packets[DATA_AFTER + 4], ts=(702, 1500))
    extended = [*packets[: DATA + 1], replace(data, tos=0), *packets[DATA + 1 : ACKED + 1]]
    extended += [probe, keepalive, *packets[ACKED + 1 :]]
    assert judged(tmp_path, extended) == []
    view = peer_view.judge(tmp_path / "capture.pcap", (MOVE_S,))
    service = view["connections"][0][1]
    assert (service["retransmitted"], service["data_bytes"]) == (1, 2 * (3 * 1448 + 100))
    assert service["segment_bytes"] == [1448, 1448]
    assert service["longest_silence_ms"] == pytest.approx(446, abs=1)
    assert judged(tmp_path, extended, most_retransmissions=0) == ["1 retransmissions"]
    assert [one for one in judged(tmp_path, extended, most_silence_ms=400) if "silent for 4" in one]


def test_same_ports_again_are_another_connection(tmp_path: Path) -> None:
    again = [replace(one, at=one.at + 5, seq=(one.seq + 77) % 2**32) for one in healthy()]
    again = [replace(one, ack=(one.ack + 77) % 2**32 if one.flags & ACK else 0) for one in again]
    assert judged(tmp_path, healthy() + again, ()) == []
    assert len(peer_view.judge(tmp_path / "capture.pcap")["connections"]) == 2


@pytest.mark.parametrize("link", (1, 101, 113, 276))
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("make", (ipv4, ipv6))
def test_link_types(tmp_path: Path, link: int, order: str, make: Any) -> None:
    kind = struct.pack("!H", 0x0800 if make is ipv4 else 0x86DD)
    vlan = b"\x81\0\0\5"
    header = {1: bytes(12) + vlan + kind, 101: b"", 113: bytes(14) + kind, 276: kind + bytes(18)}[link]
    frames = [(one.at, header + make(one) + (b"" if len(one.data) else bytes(6))) for one in healthy()]
    path = tmp_path / "capture.pcap"
    path.write_bytes(pcap([(0.5, header + b"\0" * 30), *frames], link, order))
    view = peer_view.judge(path, (MOVE_S,))
    assert view["ok"]
    assert view["connections"][0][0]["window_known"]


@pytest.mark.parametrize(
    "data", (b"", b"not a capture" * 9, pcap([(1, b"x" * 40)], link=147), pcap([(1, b"x")])[:-10])
)
def test_what_is_no_capture(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "capture.pcap"
    path.write_bytes(data)
    with pytest.raises(Unreadable):
        peer_view.judge(path)


def test_a_cut_packet_is_no_evidence(tmp_path: Path) -> None:
    path = tmp_path / "capture.pcap"
    path.write_bytes(pcap([(1000, ipv4(healthy()[DATA])[:100])]))
    with pytest.raises(Unreadable, match="was cut"):
        peer_view.judge(path)


def test_the_command(tmp_path: Path) -> None:
    command = [sys.executable, peer_view.__file__, str(tmp_path / "capture.pcap")]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *more], capture_output=True, text=True, check=False)

    assert run().returncode == 2
    judged(tmp_path, healthy())
    good = run(f"--moves={MOVE_S}", "--json", str(tmp_path / "view.json"), "--tshark")
    assert (good.returncode, good.stderr) == (0, "")
    assert "10.0.0.1:80" in good.stdout
    assert json.loads((tmp_path / "view.json").read_text())["ok"]
    judged(tmp_path, BROKEN["a reset"])
    assert run().returncode == 1
    (tmp_path / "capture.pcap").write_bytes(pcap([]))
    assert run().returncode == 2
