"""What is said with raw bytes behind it, as values: pieces of files, packets, connections. Pure.

In a frame the message tells what the bytes are, and these follow it as they are: nothing packs them, and nothing
unpacks them. Everything else is said as the message that it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

from google.protobuf.message import Message

from migrate.errors import ProtocolError
from migrate.pb import session_pb2 as pb

#: How much of a file, or of ICI records, goes into one frame.
CHUNK_BYTES = 256 << 10
#: What may stand behind a frame.
MAX_PAYLOAD_BYTES = 1 << 20


@dataclass(slots=True)
class Piece:
    """One piece of a file: of an image (name without a slash, or of a level), or to be copied (absolute path).

    The fields are those of FileChunk.
    """

    name: str
    offset: int = 0
    data: bytes = b""
    last: bool = False
    mode: int = 0
    uid: int = 0
    gid: int = 0
    accessed_ns: int = 0
    modified_ns: int = 0
    attributes: Mapping[str, bytes] = field(default_factory=dict)
    removed: bool = False
    hard_link: str = ""

    def __post_init__(self) -> None:
        """:raises UnicodeEncodeError: a name that is no text, which cannot be said."""
        "".join((self.name, self.hard_link, *self.attributes)).encode()


@dataclass(frozen=True, slots=True)
class Packets:
    """IP packets that were caught, oldest first."""

    packets: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Connections:
    """Some connections of the process.

    :ivar records: ICI records, or a piece of one that is larger than a frame may be; it goes on in the next.
    :ivar sockets: who holds those that begin here.
    """

    records: bytes
    sockets: Sequence[pb.HeldSocket] = ()


Value = Piece | Packets | Connections
#: What a link takes and gives.
Said = Message | Value

#: The kinds of frames with a payload.
KINDS = frozenset({"image", "copy", "gap", "connections"})
#: Of a Piece, which has two, its sender says which.
KIND_OF_VALUE: Mapping[type, str] = {Packets: "gap", Connections: "connections"}


def split(said: Value) -> tuple[Message, bytes]:
    """The message and the bytes behind it."""
    if isinstance(said, Piece):
        return chunk(said), said.data
    if isinstance(said, Packets):
        return pb.GapPackets(sizes=map(len, said.packets)), b"".join(said.packets)
    return pb.Connections(sockets=said.sockets), said.records


def joined(message: Message, payload: bytes) -> Said:
    """The other way round; a message without a payload is what it says.

    :raises ProtocolError: the bytes are not those that the message speaks of.
    """
    if isinstance(message, pb.FileChunk):
        return piece(message, payload)
    if isinstance(message, pb.GapPackets):
        return Packets(_cut(payload, message.sizes))
    if isinstance(message, pb.Connections):
        return Connections(payload, message.sockets)
    return message


def chunk(said: Piece) -> pb.FileChunk:
    """A piece without its data."""
    # Fields that have their default are not named: most pieces are of images, and have a name and an offset only.
    named = {name: value for name in _FIELDS if (value := getattr(said, name))}
    return pb.FileChunk(**named)


_FIELDS = tuple(name for name in Piece.__dataclass_fields__ if name != "data")


def piece(message: pb.FileChunk, data: bytes) -> Piece:
    """A piece of *data*, as *message* describes it."""
    found: dict[str, Any] = {one.name: value for one, value in message.ListFields() if one.name in _FIELDS}
    if message.attributes:
        found["attributes"] = dict(message.attributes)
    return Piece(**{"name": "", **found, "data": data})


def _cut(payload: bytes, sizes: Iterable[int]) -> list[bytes]:
    ends = list(accumulate(sizes, initial=0))
    if ends[-1] != len(payload):
        text = f"received packets of {ends[-1]} bytes in all, and {len(payload)} bytes of them"
        raise ProtocolError(text)
    return [payload[begin:end] for begin, end in pairwise(ends)]
