"""CRIU's images as records: two magic numbers, then messages, each behind its length. Pure.

Source: lib/pycriu/images/images.py of CRIU.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.message import DecodeError

from migrate.errors import ProtocolError

_U32 = struct.Struct("<I")
#: Two magic numbers.
_HEAD_BYTES = 8


def read(data: bytes, kind: Any, name: str) -> Iterator[tuple[Any, bytes]]:
    """Yield each message of an image, and the bytes that it was read from.

    :param kind: class of the messages. :param name: of the image, for the error.
    :raises ProtocolError: *data* is not an image of CRIU's, from that message on.
    """
    at = _HEAD_BYTES
    while at < len(data):
        entry = kind()
        try:
            (size,) = _U32.unpack_from(data, at)
            message = data[at + _U32.size : at + _U32.size + size]
            entry.ParseFromString(message)
        except (struct.error, DecodeError):
            raise broken(name) from None
        if len(message) < size:
            raise broken(name)
        at += _U32.size + size
        yield entry, message


def with_messages(data: bytes, messages: Iterable[bytes]) -> bytes:
    """The image *data* with other *messages* behind its magic numbers."""
    return data[:_HEAD_BYTES] + b"".join(_U32.pack(len(one)) + one for one in messages)


def broken(name: str) -> ProtocolError:
    """The error for the image *name*, which is none."""
    return ProtocolError(f"{name} is not an image of CRIU's")
