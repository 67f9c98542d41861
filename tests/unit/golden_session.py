"""Sessions that were recorded, byte for byte: `golden/session-N.txt` is one of protocol N.

It is of the newest version that speaks it; `session-N-first.txt` is of the first one, and understood as well.

A line is who said it (`o` the origin, `d` the destination), the kind of the frame, and the frame with its length,
compressed by zlib, in base64. Pings are left out. It is the move of `tests/workloads/tiny.c` with two connections,
of which one has bytes nobody has read and a FIN; `tests/lab/record_session.py` records one.
"""

from __future__ import annotations

import base64
import zlib
from pathlib import Path
from typing import NamedTuple

from migrate.pb.session_pb2 import Frame

_DIRECTORY = Path(__file__).parent / "golden"
_LENGTH_BYTES = 4


class Said(NamedTuple):
    """One frame.

    :ivar who: ``"o"`` or ``"d"``. :ivar kind: its field in Frame. :ivar data: as it went over the wire.
    """

    who: str
    kind: str
    data: bytes

    @property
    def frame(self) -> Frame:
        """It, by protobuf alone, without what stands behind it."""
        return Frame.FromString(self.data[_LENGTH_BYTES : self._end])

    @property
    def payload(self) -> bytes:
        """What stands behind it."""
        return self.data[self._end :]

    @property
    def _end(self) -> int:
        return _LENGTH_BYTES + int.from_bytes(self.data[:_LENGTH_BYTES], "big")

    @property
    def content(self) -> bytes:
        """The data of a chunk, in either protocol."""
        frame = self.frame
        return self.payload or (frame.image if self.kind == "image" else frame.copy).data


def names() -> list[str]:
    """Those that there are: the protocol, and what stands behind it."""
    return sorted(path.stem.removeprefix("session-") for path in _DIRECTORY.glob("session-*.txt"))


def protocol_of(name: str) -> int:
    """That which is spoken in the session *name*."""
    return int(name.partition("-")[0])


def session(name: str) -> list[Said]:
    """All frames of it, in their order."""
    lines = (_DIRECTORY / f"session-{name}.txt").read_text().splitlines()
    words = (line.split() for line in lines if not line.startswith("#"))
    return [Said(who, kind, zlib.decompress(base64.b64decode(text))) for who, kind, text in words]


def records(said: list[Said]) -> bytes:
    """The ICI records of all connections."""
    return images(said).get("ici.img", b"") + b"".join(
        one.payload for one in said if one.kind == "connections"
    )


def packets(said: list[Said]) -> list[bytes]:
    """The packets of the gap, in their order."""
    found: list[bytes] = []
    for one in said:
        if one.kind == "gap":
            rest = one.payload
            found += one.frame.gap.packets
            for size in one.frame.gap.sizes:
                found.append(rest[:size])
                rest = rest[size:]
    return found


def images(said: list[Said]) -> dict[str, bytes]:
    """The images that were sent, whole: name -> content."""
    found: dict[str, bytes] = {}
    for one in said:
        if one.kind == "image":
            chunk = one.frame.image
            assert chunk.offset == len(found.setdefault(chunk.name, b""))
            found[chunk.name] += one.content
    return found
