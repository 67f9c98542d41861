"""Bytes in, session frames out, and back: the framing of `images/session.proto`. No I/O here.

A frame is a length (4 bytes, big-endian, 1 to 16 MiB), one serialised ``Frame`` whose kind is set, and the payload
that this announces: raw bytes, which are copied once on their way in and not at all on their way out.
Whatever else arrives is refused and everything after it too, since nobody can tell where the next frame
begins.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from google.protobuf.message import DecodeError

from migrate.errors import ProtocolError
from migrate.link.payloads import KINDS, MAX_PAYLOAD_BYTES
from migrate.pb.session_pb2 import Frame

MAX_FRAME_BYTES = 16 << 20

_LENGTH = struct.Struct(">I")
_SHOWN_BYTES = 60


class Whole(NamedTuple):
    """A frame as it has come, and the bytes behind it."""

    frame: Frame
    payload: bytes


def encode(frame: Frame) -> bytes:
    """Return *frame* as it goes over the wire; so many bytes as it announces are to follow.

    :raises ProtocolError: no kind is set, or the message is larger than :data:`MAX_FRAME_BYTES`.
    """
    kind = frame.WhichOneof("kind")
    if kind is None:
        raise ProtocolError("a frame without a kind was to be sent")
    body = frame.SerializeToString()
    if len(body) > MAX_FRAME_BYTES:
        raise ProtocolError(
            f"a frame of {len(body)} bytes ({kind}) was to be sent; the limit is {MAX_FRAME_BYTES}",
        )
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Cuts a stream of bytes into frames.

    :ivar fault: why the stream is refused, or None. A fault behind good frames of the same call is kept here
        and raised by the next call, so that the good ones (a Failure that explains it, say) are not lost.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._waiting: Frame | None = None
        self._parts: list[memoryview] = []
        self._missing = 0
        self.fault: ProtocolError | None = None

    def feed(self, data: bytes) -> list[Whole]:
        """Take *data*, return the frames that are complete now, in order.

        :raises ProtocolError: the stream is not one of frames; every later call raises it again.
        """
        frames: list[Whole] = []
        if self.fault is None:
            left = memoryview(data)
            try:
                while left:
                    left = self._take_frame(left) if self._waiting is None else self._take_payload(left)
                    if self._waiting is not None and not self._missing:
                        frames.append(self._whole(self._waiting))
            except ProtocolError as error:
                self.fault = error
                self._buffer.clear()
                self._parts.clear()
        if self.fault is not None and not frames:
            raise self.fault
        return frames

    def finish(self) -> None:
        """Say that the stream has ended.

        :raises ProtocolError: it ended within a frame, or had been refused before.
        """
        got = len(self._buffer) + sum(map(len, self._parts))
        if self.fault is None and (got or self._waiting is not None):
            self.fault = _refusal(f"the stream ended within a frame, after {got} bytes of it")
        if self.fault is not None:
            raise self.fault

    def _take_frame(self, data: memoryview) -> memoryview:
        """Take as much of *data* as belongs to the next frame; what is left."""
        data = self._fill(data, _LENGTH.size)
        if len(self._buffer) < _LENGTH.size:
            return data
        (size,) = _LENGTH.unpack_from(self._buffer)
        if size == 0:
            raise _refusal("an empty frame")
        if size > MAX_FRAME_BYTES:
            shown = bytes(self._buffer[:_SHOWN_BYTES]) + bytes(data[:_SHOWN_BYTES])
            raise _refusal(f"not a frame: {shown[:_SHOWN_BYTES]!r}")
        data = self._fill(data, _LENGTH.size + size)
        if len(self._buffer) == _LENGTH.size + size:
            body = bytes(memoryview(self._buffer)[_LENGTH.size :])
            self._buffer.clear()
            self._waiting = _parse(body)
            self._missing = self._waiting.payload_bytes
        return data

    def _fill(self, data: memoryview, size: int) -> memoryview:
        """Take of *data* until the buffer has *size* bytes; what is left."""
        missing = max(0, size - len(self._buffer))
        self._buffer += data[:missing]
        return data[missing:]

    def _take_payload(self, data: memoryview) -> memoryview:
        """The same for the bytes behind the frame, which stay where they are until all have come."""
        taken = data[: self._missing]
        self._parts.append(taken)
        self._missing -= len(taken)
        return data[len(taken) :]

    def _whole(self, frame: Frame) -> Whole:
        payload = b"".join(self._parts)
        self._parts.clear()
        self._waiting = None
        return Whole(frame, payload)


def _parse(body: bytes) -> Frame:
    frame = Frame()
    try:
        frame.ParseFromString(body)
    except DecodeError as error:
        raise _refusal(f"a frame that cannot be decoded: {body[:_SHOWN_BYTES]!r}") from error
    kind = frame.WhichOneof("kind")
    if kind is None:
        raise _refusal("a frame of a kind that is not known here")
    if frame.payload_bytes > (MAX_PAYLOAD_BYTES if kind in KINDS else 0):
        raise _refusal(f"a frame ({kind}) that announces {frame.payload_bytes} bytes behind it")
    return frame


def _refusal(text: str) -> ProtocolError:
    return ProtocolError(f"received {text}")
