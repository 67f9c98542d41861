"""What a command's two ends say to each other: frames of a kind, a length and bytes.

Pure. The first frame of the asking end is a REQUEST, a JSON object::

    {"mode": "exec" | "spawn", "command": [...], "log": FILE or "", "term": NAME or "",
     "tty": [rows, columns] or null}

An INPUT is sent when the command has read the one before, as TAKEN tells: so it never stands in a SIGNAL's way, and
what the command does not read is not taken from whoever gave it.
"""

import struct

REQUEST, INPUT, SIGNAL, OUTPUT, ERRORS, STATUS, SPAWNED, TAKEN, SIZE = range(1, 10)
_HEADER = struct.Struct(">BI")
#: Of one frame's bytes; who sends more is not one of the two ends. A command may have words of 6 MB, in JSON six
#: characters for each byte at worst. Source: fs/exec.c bprm_stack_limits().
LONGEST = 40 << 20


class Unexpected(Exception):
    """The other end said what it never says."""


def frame(kind: int, data: bytes = b"") -> bytes:
    """Return one frame.

    :param data: of INPUT: nothing is the end of the input. SIGNAL: number, whether a terminal sent it. STATUS: the
        wait status, TAKEN: how many bytes, both in decimal digits. SIZE: rows and columns, 16 bits each.
    """
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
