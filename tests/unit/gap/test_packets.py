"""Captured packets taken apart, cut and put together again; and the filter that chooses them, interpreted."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.gap import filter, packets
from migrate.gap.packets import ACK, CWR, FIN, PSH, RST, SYN, URG
from tcpcp.endpoint.isolation import Flow
from tcpcp.record.ici import Endpoint

IPS = {
    4: (ipaddress.ip_address("10.1.2.3"), ipaddress.ip_address("10.9.8.7")),
    6: (ipaddress.ip_address("fd00::a:b"), ipaddress.ip_address("fd00::1:2")),
}
LOCAL_PORT, PEER_PORT = 7000, 40001

versions = st.sampled_from((4, 6))
tcp_options = st.sampled_from((b"", b"\1\1\x08\x0a" + bytes(range(8)), b"\1" * 40))
ip_options = st.sampled_from((b"", b"\1\1\1\0"))


def folded(data: bytes) -> int:
    """RFC 1071 as it is written there, word by word."""
    data += bytes(len(data) % 2)
    total: int = sum(word for (word,) in struct.iter_unpack("!H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return total


def right(packet: bytes) -> bool:
    """Whether all checksums and lengths of *packet* are those that a receiver wants."""
    if packet[0] >> 4 == 4:
        header = 4 * (packet[0] & 0xF)
        addresses, length = packet[12:20], struct.unpack_from("!H", packet, 2)[0]
        good = folded(packet[:header]) == 0xFFFF
    else:
        header = 40 if packet[6] == 6 else 48
        addresses, length = packet[8:40], struct.unpack_from("!H", packet, 4)[0] + 40
        good = True
    pseudo = addresses + struct.pack("!II", len(packet) - header, 6)
    return good and length == len(packet) and folded(pseudo + packet[header:]) == 0xFFFF


def raw(
    version: int = 4,
    payload: bytes = b"",
    *,
    options: bytes = b"",
    extra: bytes = b"",
    flags: int = ACK,
    seq: int = 5,
    proto: int = 6,
    fragment: int = 0x4000,
    ports: tuple[int, int] = (PEER_PORT, LOCAL_PORT),
    jumbo: bool = False,
) -> bytes:
    """A packet without checksums. *extra*: IPv4 options."""
    local, peer = IPS[version]
    offset = (20 + len(options)) // 4 << 4
    tcp = struct.pack("!HHIIBBHHH", *ports, seq, 9, offset, flags, 500, 0xABCD, 0) + options
    body = tcp + payload
    if version == 4:
        size = 20 + len(extra) + len(body)
        first = 0x45 + len(extra) // 4
        fields = (first, 2, 0 if jumbo else size, 0xFFFF, fragment, 61, proto, 0, peer.packed, local.packed)
        return struct.pack("!BBHHHBBH4s4s", *fields) + extra + body
    if jumbo:
        body = bytes([6, 0, 0xC2, 4]) + struct.pack("!I", 8 + len(body)) + body
    length = 0 if jumbo else len(body)
    return (
        struct.pack("!IHBB16s16s", 6 << 28, length, 0 if jumbo else proto, 61, peer.packed, local.packed)
        + body
    )


def parsed(data: bytes) -> packets.Segment:
    segment = packets.parse(data)
    assert segment is not None
    return segment


@given(versions, st.binary(max_size=200), tcp_options, ip_options, st.integers(0, 9))
def test_a_packet_is_completed_and_nothing_else_changes(
    version: int, payload: bytes, options: bytes, extra: bytes, padding: int
) -> None:
    data = raw(version, payload, options=options, extra=extra if version == 4 else b"")
    segment = parsed(data + bytes(padding))
    packet = packets.build(segment)
    assert right(packet)
    assert len(packet) == len(data)
    checksums = {10, 11, len(segment.ip) + 16, len(segment.ip) + 17} - ({10, 11} if version == 6 else set())
    assert {i for i in range(len(data)) if packet[i] != data[i]} <= checksums
    assert packets.parse(packet) is not None
    assert packets.intact(parsed(packet))


@given(versions, st.binary(max_size=200), st.integers(0, 9))
def test_a_packet_that_is_whole_stays_as_it_came(version: int, payload: bytes, padding: int) -> None:
    packet = packets.build(parsed(raw(version, payload)))
    assert packets.whole(parsed(packet + bytes(padding))).packet == packet
    assert [one.packet for one in packets.parse_all([packet, b"", packet[:30]])] == [packet]


@pytest.mark.parametrize("version", (4, 6))
def test_what_is_changed_is_built_anew(version: int) -> None:
    segment = parsed(raw(version, b"data" * 100))
    changed = [
        packets.outdated(segment),
        *packets.split(segment, 200),
        parsed(raw(version, b"x", jumbo=True)),
    ]
    assert [one.packet for one in changed] == [b""] * len(changed)
    assert all(right(packets.whole(one).packet) for one in changed)
    assert list(packets.parse_all([raw(version, b"x", jumbo=True)])) == []


@given(versions, st.binary(min_size=1, max_size=60), st.data())
def test_damage_is_seen(version: int, payload: bytes, data: st.DataObject) -> None:
    packet = bytearray(packets.build(parsed(raw(version, payload))))
    where = data.draw(st.integers(len(packet) - len(payload), len(packet) - 1))
    packet[where] ^= data.draw(st.integers(1, 255))
    assert not packets.intact(parsed(bytes(packet)))


@given(versions, st.binary(max_size=5000), st.integers(1, 4000), st.integers(0, 2**32 - 1), st.booleans())
def test_the_pieces_are_the_whole(version: int, payload: bytes, most: int, seq: int, fin: bool) -> None:
    flags = ACK | PSH | CWR | (FIN if fin else 0)
    whole = parsed(raw(version, payload, seq=seq, flags=flags, options=b"\1" * 12))
    pieces = [parsed(packets.build(piece)) for piece in packets.split(whole, most)]
    assert b"".join(piece.payload for piece in pieces) == payload
    expected, overhead = seq, len(whole.ip) + len(whole.tcp)
    for piece in pieces:
        assert struct.unpack_from("!I", piece.tcp, 4)[0] == expected % 2**32
        assert len(piece.payload) <= max(1, most - overhead)
        assert (piece.key, piece.tcp[20:]) == (whole.key, whole.tcp[20:])
        expected += len(piece.payload)
    assert [piece.flags & (FIN | PSH) for piece in pieces[:-1]] == [0] * (len(pieces) - 1)
    assert pieces[-1].flags & (FIN | PSH) == flags & (FIN | PSH)
    assert [bool(piece.flags & CWR) for piece in pieces] == [True] + [False] * (len(pieces) - 1)


@pytest.mark.parametrize("flags", (SYN, RST, URG | ACK))
def test_what_must_not_be_cut_and_cannot_be_sent_is_nothing(flags: int) -> None:
    assert packets.split(parsed(raw(4, bytes(70000), flags=flags, jumbo=True)), 1500) == []
    whole = parsed(raw(4, bytes(3000), flags=flags))
    assert packets.split(whole, 1500) == [whole]


@pytest.mark.parametrize(("units", "taken"), [(0, True), (31, True), (32, False), (255, False)])
def test_a_packet_that_is_all_header_does_not_become_many(units: int, taken: bool) -> None:
    """A hop-by-hop header goes into every piece: of 2 kB of it, a packet of 64 kB would make 130 MB."""
    packet = bytearray(raw(6, bytes(5000)))
    packet[6] = 0
    packet[40:40] = bytes([6, units]) + b"\1\4" + bytes(8 * units + 4)
    packet[4:6] = struct.pack("!H", len(packet) - 40)
    segment = packets.parse(bytes(packet))
    assert (segment is not None) is taken
    if segment is not None:
        made = [packets.build(piece) for piece in packets.split(segment, 1500)]
        assert sum(map(len, made)) < 2 * len(packet)


@pytest.mark.parametrize("version", (4, 6))
def test_longer_than_a_packet_can_be(version: int) -> None:
    """What BIG TCP makes: no length in the header; of IPv6 perhaps a jumbogram's option."""
    payload = bytes(range(256)) * 500
    segment = parsed(raw(version, payload, jumbo=True))
    assert segment.payload == payload
    with pytest.raises(ValueError, match="a packet of"):
        packets.build(segment)
    pieces = [packets.build(piece) for piece in packets.split(segment, 1500)]
    assert all(right(piece) and len(piece) <= 1500 for piece in pieces)
    assert b"".join(parsed(piece).payload for piece in pieces) == payload


NOT_CARRIED = {
    "nothing": b"",
    "another version": b"\x55" + bytes(60),
    "UDP": raw(proto=17),
    "UDP over IPv6": raw(6, proto=17),
    "first fragment": raw(fragment=0x2000),
    "later fragment": raw(fragment=0x0005),
    "cut": raw(4, b"x" * 50)[:60],
    "cut, IPv6": raw(6, b"x" * 50)[:80],
    "IP header too short": b"\x42" + raw()[1:],
    "TCP header too long": raw()[:32] + b"\xf0" + raw()[33:],
    "TCP header too short": raw()[:32] + b"\x10" + raw()[33:],
}


@pytest.mark.parametrize("data", NOT_CARRIED.values(), ids=NOT_CARRIED.keys())
def test_what_is_not_carried(data: bytes) -> None:
    assert packets.parse(data) is None


@given(st.binary(max_size=120))
def test_nothing_makes_it_fail(data: bytes) -> None:
    segment = packets.parse(data)
    if segment is not None:
        packets.intact(segment)
        assert packets.parse(packets.build(segment)) is not None


def flow(version: int, peer_port: int = PEER_PORT) -> Flow:
    local, peer = IPS[version]
    return Flow(Endpoint(local, LOCAL_PORT), Endpoint(peer, peer_port))


@pytest.mark.parametrize("version", (4, 6))
def test_wanted(version: int) -> None:
    local = Endpoint(IPS[version][0], LOCAL_PORT)
    anywhere = Endpoint(ipaddress.ip_address("0.0.0.0" if version == 4 else "::"), LOCAL_PORT)
    elsewhere = Endpoint(ipaddress.ip_address("::" if version == 4 else "0.0.0.0"), LOCAL_PORT)
    data = parsed(raw(version, b"x"))
    syn = parsed(raw(version, flags=SYN | 0xC0))
    assert data in packets.Wanted([flow(version)], [])
    assert data not in packets.Wanted([flow(version, PEER_PORT + 1)], [local])
    for listener, expected in ((local, True), (anywhere, True), (elsewhere, False)):
        wanted = packets.Wanted([], [listener])
        assert (syn in wanted) is expected
        for flags in (ACK, SYN | ACK, RST, FIN | ACK):
            assert parsed(raw(version, flags=flags)) not in wanted
    assert syn not in packets.Wanted([], [Endpoint(local.ip, LOCAL_PORT + 1)])


def test_outdated() -> None:
    segment = parsed(raw(4, b"data", options=b"\1" * 12, seq=0, flags=ACK | PSH))
    nudge = packets.outdated(segment)
    assert struct.unpack_from("!I", nudge.tcp, 4)[0] == 2**32 - 1
    assert (nudge.flags, nudge.payload, len(nudge.tcp), nudge.key) == (ACK, b"", 20, segment.key)
    assert right(packets.build(nudge))


# --- the filter --------------------------------------------------------------------------------------------


def passes(program: bytes, packet: bytes, packet_type: int = 0, interface: int = 2) -> bool:
    """Classic BPF, as Documentation/networking/filter.rst has it: the instructions that are used here."""
    code = list(struct.iter_unpack("=HBBI", program))
    a = x = at = 0
    while True:
        op, yes, no, k = code[at]
        at += 1
        base = x if op in (0x50, 0x48) else 0
        size = {0x30: 1, 0x28: 2, 0x20: 4, 0x50: 1, 0x48: 2}.get(op)
        if size:
            if k == 0xFFFFF004:
                a = packet_type
            elif k == 0xFFFFF008:
                a = interface
            elif base + k + size > len(packet):
                return False
            else:
                a = int.from_bytes(packet[base + k : base + k + size], "big")
        elif op == 0xB1:
            x = 4 * (packet[k] & 0xF)
        elif op == 0x54:
            a &= k
        elif op in (0x15, 0x45):
            at += yes if (a == k if op == 0x15 else a & k) else no
        else:
            assert op == 0x06
            return bool(k)


def programs(version: int, ports: list[int], *, syn_only: bool = False) -> Iterator[bytes]:
    """With the address that the packets have among one, many, too many, and no addresses."""
    make = filter.for_ipv4 if version == 4 else filter.for_ipv6
    local = IPS[version][0]
    for count in (0, 1, 50, filter.MOST_VALUES, filter.MOST_VALUES + 1):
        yield make([local + i for i in range(-count + 1, 1)], ports, syn_only=syn_only)


PORTS: tuple[list[int], ...] = (
    [],
    [LOCAL_PORT],
    list(range(LOCAL_PORT - 99, LOCAL_PORT + 101)),
    list(range(9000)),
)


@pytest.mark.parametrize("version", (4, 6))
@pytest.mark.parametrize("ports", PORTS, ids=len)
def test_filter_lets_through_what_is_wanted(version: int, ports: list[int]) -> None:
    for program in programs(version, ports):
        for flags in (ACK, SYN, FIN | ACK, RST):
            assert passes(program, raw(version, b"xyz", flags=flags))
        if version == 4:
            assert passes(program, raw(4, extra=b"\1\1\1\0"))
        else:
            assert passes(program, raw(6, b"x" * 70000, jumbo=True))
    for program in programs(version, ports, syn_only=True):
        assert passes(program, raw(version, flags=SYN | 0xC0))
        assert not passes(program, raw(version, flags=SYN | ACK))
        assert not passes(program, raw(version, flags=ACK))


@pytest.mark.parametrize("version", (4, 6))
def test_filter_keeps_others_away(version: int) -> None:
    for program in programs(version, [LOCAL_PORT]):
        assert not passes(program, raw(version, ports=(PEER_PORT, LOCAL_PORT + 1)))
        assert not passes(program, raw(version, ports=(LOCAL_PORT, PEER_PORT)))
        assert not passes(program, raw(version, proto=17))
        assert not passes(program, raw(version), packet_type=3)
        assert not passes(program, raw(version), interface=1)
        assert not passes(program, b"")
    make = filter.for_ipv4 if version == 4 else filter.for_ipv6
    assert not passes(make([IPS[version][0] + 1]), raw(version))
    assert not passes(filter.nothing(), raw(version))
    if version == 4:
        assert not any(passes(one, raw(fragment=0x2000)) for one in programs(4, []))
