"""What a command's two ends say to each other: frames of a kind, a length and bytes.

Pure. The first frame of the asking end is a REQUEST, a JSON object::

    {"mode": "exec" | "spawn", "command": [...], "log": FILE or "", "term": NAME or "",
     "tty": [rows, columns] or null}
"""

import struct

REQUEST, INPUT, SIGNAL, OUTPUT, ERRORS, STATUS, SPAWNED = range(1, 8)
_HEADER = struct.Struct(">BI")
#: Of one frame's bytes; who sends more is not one of the two ends.
LONGEST = 1 << 20


class Unexpected(Exception):
    """The other end said what it never says."""


def frame(kind: int, data: bytes = b"") -> bytes:
    """Return one frame. For INPUT no *data* means the end of the input."""
    return _HEADER.pack(kind, len(data)) + data


class Reader:
    """Takes bytes as they come, and gives whole frames."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the frames that *data* completes. :raises Unexpected: a frame is too long."""
        self._bytes += data
        found = []
        while len(self._bytes) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._bytes)
            if length > LONGEST:
                raise Unexpected(f"a frame of {length} bytes")
            end = _HEADER.size + length
            if len(self._bytes) < end:
                break
            found.append((kind, bytes(self._bytes[_HEADER.size : end])))
            del self._bytes[:end]
        return found
