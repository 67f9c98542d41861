"""ICI images: what is written comes back; whatever else is read is an ICI or a CodecError."""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import pytest
from golden_icis import DIRECTORY, GOLDEN
from google.protobuf.message import EncodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import damaged, icis

from tcpcp.errors import CodecError, IciError
from tcpcp.pb import ici_pb2 as pb
from tcpcp.record import checks, codec
from tcpcp.record.ici import Endpoint, Ici, ReceiveQueue, State

PLAIN = GOLDEN["established"]


def record(message: bytes, version: int = 3, reserved: int = 0) -> bytes:
    """A record made without the code under test, from images/README.md."""
    numbers = struct.pack(">HHI", version, reserved, len(message))
    crc = zlib.crc32(numbers + message)
    return b"\x89ICI\r\n\x1a\n" + numbers + struct.pack(">I", crc) + message


def changed(change: Callable[[pb.Ici], object]) -> bytes:
    message = codec.message(PLAIN)
    change(message)
    return record(message.SerializeToString())


@given(icis())
def test_round_trip(ici: Ici) -> None:
    assert codec.loads(codec.dumps(ici)) == ici


@given(icis())
def test_round_trip_inside_another_message(ici: Ici) -> None:
    assert codec.from_message(codec.message(ici)) == ici


@given(icis())
def test_one_value_has_one_image(ici: Ici) -> None:
    shuffled = dataclasses.replace(ici, options=dict(reversed(ici.options.items())))
    assert codec.dumps(shuffled) == codec.dumps(ici)


@pytest.mark.parametrize("name", [one.name for one in dataclasses.fields(Ici) if one.name != "timestamp"])
def test_a_field_that_is_none(name: str) -> None:
    without = dataclasses.replace(PLAIN, **{name: None})
    with pytest.raises(CodecError, match="cannot be written"):
        codec.dumps(without)


@pytest.mark.parametrize("error", (MemoryError(), EncodeError("Failed to serialize proto")))
def test_no_memory_for_it(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """What protobuf says then is EncodeError."""

    class Full:
        def SerializeToString(self, deterministic: bool) -> bytes:  # noqa: N802
            raise error

    monkeypatch.setattr(codec, "message", lambda ici: Full())
    with pytest.raises(CodecError, match="not enough memory"):
        codec.dumps(PLAIN)


#: Reads an image with a little more memory each time; says each outcome.
LITTLE = """
import resource, sys
from tcpcp.errors import CodecError
from tcpcp.record import codec
data = sys.stdin.buffer.read()
for room in range(0, 48 << 20, 1 << 19):
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room, resource.RLIM_INFINITY))
    try:
        codec.loads(data)
        said = "read"
    except CodecError as error:
        said = "not enough memory" if "not enough memory" in str(error) else str(error)
    except BaseException as error:
        said = type(error).__name__
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(said)
"""


def test_no_memory_to_read_it() -> None:
    data = codec.dumps(dataclasses.replace(PLAIN, receive_queue=ReceiveQueue(b"r" * (8 << 20))))
    said = subprocess.run([sys.executable, "-c", LITTLE], input=data, capture_output=True, check=True)
    assert set(said.stdout.decode().splitlines()) == {"not enough memory", "read"}


def test_two_full_queues_fit() -> None:
    assert 2 * checks.MAX_QUEUE_BYTES + (1 << 16) < codec.MAX_MESSAGE_BYTES


@given(st.lists(icis(), max_size=3))
def test_an_image_is_its_records(many: list[Ici]) -> None:
    assert list(codec.loads_many(b"".join(map(codec.dumps, many)))) == many


@given(icis(), st.data())
def test_a_cut_record_is_refused(ici: Ici, data: st.DataObject) -> None:
    whole = codec.dumps(ici)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(CodecError, match="offset"):
        codec.loads(whole[:cut])


@given(icis(), st.data())
def test_one_changed_bit_is_found(ici: Ici, data: st.DataObject) -> None:
    whole = bytearray(codec.dumps(ici))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CodecError):
        codec.loads(whole)


@settings(max_examples=300)
@given(st.data())
def test_damaged_bytes_are_an_ici_or_an_error(data: st.DataObject) -> None:
    ici = data.draw(icis())
    try:
        found = codec.loads(data.draw(damaged(codec.dumps(ici))))
    except CodecError:
        return
    assert found == ici


@settings(max_examples=300)
@given(st.data())
def test_damage_with_a_right_crc_is_an_ici_or_an_error(data: st.DataObject) -> None:
    """A hostile writer can compute a CRC. What is read then can be judged, and written again."""
    message = codec.message(data.draw(icis())).SerializeToString()
    try:
        found = codec.loads(record(data.draw(damaged(message))))
        assert codec.loads(codec.dumps(found)) == found
        checks.check(found, checks.Limits())
    except (CodecError, IciError):
        pass


@given(st.binary(max_size=60))
@example(b"")
@example(codec.MAGIC)
@example(codec.MAGIC + b"\xff" * 60)
def test_any_bytes(data: bytes) -> None:
    for given_bytes in (data, record(data)):
        with pytest.raises(CodecError):
            codec.loads(given_bytes)


def test_bytes_after_the_record() -> None:
    whole = codec.dumps(PLAIN)
    with pytest.raises(CodecError, match=f"offset {len(whole)}: expected the end"):
        codec.loads(whole + b"x")


def test_records_before_a_bad_one_are_given() -> None:
    whole = codec.dumps(PLAIN)
    reader = codec.loads_many(whole + whole[:-1])
    assert next(reader) == PLAIN
    with pytest.raises(CodecError, match=f"offset {len(whole) + 20}: cut short"):
        next(reader)


def test_another_version_is_named() -> None:
    with pytest.raises(CodecError, match="format version 2, this tcpcp reads version 3"):
        codec.loads(record(b"", version=2))


def test_another_version_inside() -> None:
    with pytest.raises(CodecError, match="version 2, this tcpcp reads version 3"):
        codec.loads(changed(lambda msg: setattr(msg, "version", 2)))


def test_a_length_over_the_limit_is_not_believed() -> None:
    header = struct.pack(">8sHHII", codec.MAGIC, 3, 0, 2**32 - 1, 0)
    with pytest.raises(CodecError, match="over the limit"):
        codec.loads(header)


def test_reserved_bytes_are_zero() -> None:
    with pytest.raises(CodecError, match="offset 10: expected 0"):
        codec.loads(record(codec.message(PLAIN).SerializeToString(), reserved=1))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda msg: msg.ClearField("window"), "field window"),
        (lambda msg: msg.ClearField("send_queue"), "field send_queue"),
        (lambda msg: setattr(msg, "state", 0), "expected a state"),
        (lambda msg: setattr(msg, "state", 99), "found 99"),
        (lambda msg: setattr(msg.local, "ip", b"123"), "4 or 16 bytes in local.ip, found 3"),
        (lambda msg: setattr(msg.peer, "ip", bytes(10) + b"\xff\xff1234"), "written as IPv4 in peer.ip"),
        (lambda msg: msg.options.append(msg.options[0]), "once"),
        (lambda msg: msg.MergeFromString(b"\xf8\x07\x01"), "no field of number 127 in Ici"),
        (lambda msg: msg.window.MergeFromString(b"\xf8\x07\x01"), "no field of number 127 in Window"),
        (lambda msg: msg.options[0].MergeFromString(b"\xf8\x07\x01"), "127 in SocketOption"),
        (lambda msg: msg.timestamp.MergeFromString(b"\xf8\x07\x01"), "127 in Timestamp"),
    ],
)
def test_what_no_ici_holds_is_refused(change: Callable[[pb.Ici], object], says: str) -> None:
    with pytest.raises(CodecError, match=says):
        codec.loads(changed(change))


@pytest.mark.parametrize(
    "wrong",
    [
        {"snd_nxt": 2**32},
        {"rcv_nxt": -1},
        {"tag": 2**64},
        {"version": 1},
        {"state": 12},
        {"device": "\ud800"},
        {"options": {"SO_MARK": 2**63}},
        {"peer": Endpoint(ipaddress.ip_address("::ffff:10.0.0.1"), 1)},
        {"local": Endpoint(ipaddress.ip_address("fe80::1%eth0"), 1)},
    ],
)
def test_what_does_not_fit_is_not_written(wrong: dict[str, object]) -> None:
    with pytest.raises(CodecError, match="cannot be written"):
        codec.dumps(dataclasses.replace(PLAIN, **wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_image(name: str) -> None:
    """Made by tests/unit/golden_icis.py and committed: the format has not changed unnoticed."""
    data = (DIRECTORY / f"{name}.ici").read_bytes()
    assert codec.loads(data) == GOLDEN[name]
    assert codec.dumps(GOLDEN[name]) == data


def test_golden_image_by_hand() -> None:
    """Without the code under test: the header, and protobuf's encoding of two fields that matter."""
    data = (DIRECTORY / "established.ici").read_bytes()
    assert data == record(data[20:])
    assert b"\x18" + bytes([State.ESTABLISHED]) in data
    assert b"\x4d" + struct.pack("<I", PLAIN.snd_nxt) in data


@given(st.lists(icis(), max_size=4), st.data())
def test_an_image_in_pieces(found: list[Ici], data: st.DataObject) -> None:
    """Of any beginning of an image the whole records are told, and no more."""
    records = [codec.dumps(ici) for ici in found]
    image = b"".join(records)
    cut = data.draw(st.integers(0, len(image)))
    whole = codec.whole_records(image[:cut])
    ends = [0, *itertools.accumulate(map(len, records))]
    assert whole == max(end for end in ends if end <= cut)


def test_a_record_that_can_never_be_whole_is_given_out_to_be_refused() -> None:
    head = codec.HEADER.pack(codec.MAGIC, 3, 0, codec.MAX_MESSAGE_BYTES + 1, 0)
    assert codec.whole_records(head) == len(head)


@pytest.mark.parametrize("port", (70000, 65536, -1))
@pytest.mark.parametrize("write", (codec.dumps, codec.size))
def test_what_is_no_port(write: Callable[[Ici], object], port: int) -> None:
    with pytest.raises(CodecError, match=f"port {port}: must be 0 to 65535"):
        write(PLAIN.at(port=port))


@pytest.mark.parametrize("strange", (None, [PLAIN], b"ICI"))
def test_what_is_no_ici(strange: object) -> None:
    with pytest.raises(TypeError, match=f"not an Ici but {type(strange).__name__}"):
        codec.dumps(strange)  # type: ignore[arg-type]
