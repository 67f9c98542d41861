"""Framing: whatever way the bytes are cut or damaged, frames come out whole or not at all."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.errors import ProtocolError
from migrate.link import frames as wire
from migrate.link.frames import Whole
from migrate.link.payloads import MAX_PAYLOAD_BYTES
from migrate.pb.session_pb2 import Commit, FileChunk, Frame, GapPackets, Hello, Ping, Restored

frames = st.one_of(
    st.builds(lambda: Whole(Frame(ping=Ping()), b"")),
    st.builds(lambda: Whole(Frame(commit=Commit()), b"")),
    st.builds(lambda text: Whole(Frame(hello=Hello(protocol=1, version=text)), b""), st.text(max_size=20)),
    st.builds(
        lambda data: Whole(Frame(image=FileChunk(name="pages-1.img"), payload_bytes=len(data)), data),
        st.binary(max_size=300),
    ),
    st.builds(lambda pid: Whole(Frame(restored=Restored(destination_pid=pid)), b""), st.integers(0, 2**22)),
)


def encoded(whole: Whole) -> bytes:
    return wire.encode(whole.frame) + whole.payload


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


@given(st.lists(frames, max_size=8), st.lists(st.integers(0, 10_000), max_size=20))
def test_frames_survive_any_split(sent: list[Whole], cuts: list[int]) -> None:
    decoder = wire.Decoder()
    received: list[Whole] = []
    for piece in pieces(b"".join(map(encoded, sent)), cuts):
        received += decoder.feed(piece)
    decoder.finish()
    assert received == sent


@given(st.lists(frames, min_size=1, max_size=4), st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_gives_frames_or_a_protocol_error(sent: list[Whole], place: int, flip: int) -> None:
    data = bytearray(b"".join(map(encoded, sent)))
    data[place % len(data)] ^= flip
    decoder = wire.Decoder()
    try:
        received = decoder.feed(bytes(data))
        decoder.finish()
    except ProtocolError as error:
        assert error.of_the_other
    else:
        assert all(one.frame.WhichOneof("kind") for one in received)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_garbage_never_raises_anything_else(data: bytes, cuts: list[int]) -> None:
    decoder = wire.Decoder()
    try:
        for piece in pieces(data, cuts):
            decoder.feed(piece)
        decoder.finish()
    except ProtocolError:
        assert decoder.fault is not None


@given(frames, st.integers(1, 3))
def test_a_cut_stream_is_noticed(whole: Whole, missing: int) -> None:
    decoder = wire.Decoder()
    assert decoder.feed(encoded(whole)[:-missing]) == []
    with pytest.raises(ProtocolError, match="within a frame"):
        decoder.finish()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (struct.pack(">I", wire.MAX_FRAME_BYTES + 1), "not a frame"),
        (b"Welcome to Debian!\r\n", "Welcome to Debian"),
        (struct.pack(">I", 0), "empty frame"),
        (struct.pack(">I", 3) + b"\xff\xff\xff", "cannot be decoded"),
        (struct.pack(">I", 4) + b"\xf8\x0f\x01\x00"[:4], "cannot be decoded|kind"),
        (struct.pack(">I", 3) + bytes([0xB8, 0x0F, 0x01]), "not known here"),  # field 247, a varint
    ],
)
def test_refused(data: bytes, text: str) -> None:
    with pytest.raises(ProtocolError, match=text):
        wire.Decoder().feed(data)


def test_frames_before_garbage_are_not_lost() -> None:
    decoder = wire.Decoder()
    hello = Frame(hello=Hello(version="1"))
    assert decoder.feed(wire.encode(hello) + b"\xff" * 10) == [Whole(hello, b"")]
    assert decoder.fault is not None
    with pytest.raises(ProtocolError):
        decoder.feed(wire.encode(hello))
    with pytest.raises(ProtocolError):
        decoder.finish()


def test_the_largest_frame_passes_and_a_larger_one_is_not_sent() -> None:
    overhead = Frame(image=FileChunk(data=b"x" * wire.MAX_FRAME_BYTES)).ByteSize() - wire.MAX_FRAME_BYTES
    frame = Frame(image=FileChunk(data=b"x" * (wire.MAX_FRAME_BYTES - overhead)))
    assert wire.Decoder().feed(wire.encode(frame)) == [Whole(frame, b"")]
    frame.image.data += b"x"
    with pytest.raises(ProtocolError, match="limit"):
        wire.encode(frame)


def test_a_frame_without_a_kind_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="without a kind"):
        wire.encode(Frame())


@pytest.mark.parametrize(
    "frame",
    [
        Frame(image=FileChunk(name="a"), payload_bytes=MAX_PAYLOAD_BYTES + 1),
        Frame(gap=GapPackets(), payload_bytes=(1 << 32) - 1),
        Frame(commit=Commit(), payload_bytes=1),
    ],
)
def test_more_behind_a_frame_than_may_be(frame: Frame) -> None:
    with pytest.raises(ProtocolError, match="announces"):
        wire.Decoder().feed(wire.encode(frame))


def test_a_payload_that_never_comes_is_noticed() -> None:
    decoder = wire.Decoder()
    assert decoder.feed(wire.encode(Frame(image=FileChunk(name="a"), payload_bytes=5))) == []
    with pytest.raises(ProtocolError, match="within a frame"):
        decoder.finish()
