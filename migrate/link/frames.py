"""Bytes in, session frames out, and back: the framing of `images/session.proto`. No I/O here.

A frame is a length (4 bytes, big-endian, 1 to 16 MiB) and one serialised ``Frame`` whose kind is set.
Whatever else arrives is refused and everything after it too, since nobody can tell where the next frame
begins.
"""

from __future__ import annotations

import struct

from google.protobuf.message import DecodeError

from migrate.errors import ProtocolError
from migrate.pb.session_pb2 import Frame

#: Said in Hello; the two ends have to agree on it.
PROTOCOL = 2

MAX_FRAME_BYTES = 16 << 20
CHUNK_BYTES = 256 << 10

_LENGTH = struct.Struct(">I")
_SHOWN_BYTES = 60


def encode(frame: Frame) -> bytes:
    """Return *frame* as it goes over the wire.

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
        self.fault: ProtocolError | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """Take *data*, return the frames that are complete now, in order.

        :raises ProtocolError: the stream is not one of frames; every later call raises it again.
        """
        frames: list[Frame] = []
        if self.fault is None:
            self._buffer += data
            try:
                while (frame := self._next()) is not None:
                    frames.append(frame)
            except ProtocolError as error:
                self.fault = error
                self._buffer.clear()
        if self.fault is not None and not frames:
            raise self.fault
        return frames

    def finish(self) -> None:
        """Say that the stream has ended.

        :raises ProtocolError: it ended within a frame, or had been refused before.
        """
        if self.fault is None and self._buffer:
            self.fault = _refusal(f"the stream ended within a frame, after {len(self._buffer)} bytes of it")
        if self.fault is not None:
            raise self.fault

    def _next(self) -> Frame | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        (size,) = _LENGTH.unpack_from(self._buffer)
        if size == 0:
            raise _refusal("an empty frame")
        if size > MAX_FRAME_BYTES:
            raise _refusal(f"not a frame: {bytes(self._buffer[:_SHOWN_BYTES])!r}")
        end = _LENGTH.size + size
        if len(self._buffer) < end:
            return None
        body = bytes(memoryview(self._buffer)[_LENGTH.size : end])
        del self._buffer[:end]
        return _parse(body)


def _parse(body: bytes) -> Frame:
    frame = Frame()
    try:
        frame.ParseFromString(body)
    except DecodeError as error:
        raise _refusal(f"a frame that cannot be decoded: {body[:_SHOWN_BYTES]!r}") from error
    if frame.WhichOneof("kind") is None:
        raise _refusal("a frame of a kind that is not known here")
    return frame


def _refusal(text: str) -> ProtocolError:
    return ProtocolError(f"received {text}")
