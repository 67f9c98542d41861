"""What protocol 2 says otherwise, for a partner that speaks no newer one: nothing outside of this file knows of it.

There payloads are fields of their messages; connections are chunks of an image with the name ``ici.img``, which is
in the manifest like any other, and those who hold them are named in Restore; and a driver takes no answer but of an
agent with its own version, in the hello and in what is said of the host.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from migrate.errors import MigrateError, ProtocolError
from migrate.link import payloads
from migrate.link.payloads import CHUNK_BYTES, Connections, Packets, Piece, Said
from migrate.pb import session_pb2 as pb
from migrate.pb.manifest_pb2 import ImageFile

NUMBER = 2
_ICI_IMAGE = "ici.img"
_NO_NAMES = "{} is one more name of {}, and the destination's migrate makes two files of them"
#: What a Restore may have that a version of this protocol passes over, by names on the way to it, all repeated but
#: the last: what that means for the process.
PASSED_OVER = {
    "ended_calls": "system calls in which threads of it wait end there as by a signal (EINTR)",
    "others": "options of its sockets that CRIU does not carry are those of new sockets there",
    "surroundings.autogroup_nice": "the nice value of its session (autogroup) is that of a new one there",
    "surroundings.threads.slice_ns": "threads of it that have asked for a time slice have the usual one there",
}
_UPGRADE = "Install this migrate there too, or move without --copy-tree for that directory."


class Image:
    """The image of the connections that was said, or heard, so far; it is nowhere as a file."""

    def __init__(self) -> None:
        self._size, self._digest, self._begun = 0, hashlib.sha256(), False

    def chunks(self, records: bytes) -> Iterator[pb.FileChunk]:
        """The next ones."""
        for begin in range(0, len(records), CHUNK_BYTES):
            data = records[begin : begin + CHUNK_BYTES]
            yield pb.FileChunk(name=_ICI_IMAGE, offset=self._size, data=data)
            self._add(data)

    def take(self, chunk: pb.FileChunk) -> bool:
        """Whether *chunk* is its next one; of others the images' receiver says what is wrong."""
        if chunk.name != _ICI_IMAGE or chunk.offset != self._size:
            return False
        self._add(chunk.data)
        return True

    def _add(self, data: bytes) -> None:
        self._begun = True
        self._size += len(data)
        self._digest.update(data)

    def enter(self, restore: pb.Restore) -> None:
        """Have the manifest list it, in its order."""
        if self._begun:
            files = sorted((*restore.manifest.files, self._entry()), key=lambda one: one.name)
            del restore.manifest.files[:]
            restore.manifest.files.extend(files)

    def leave(self, restore: pb.Restore) -> None:
        """Have the manifest not list it, if it says what has come; else it stays, and is refused like any other."""
        files = list(restore.manifest.files)
        entry = self._entry()
        if entry in files:
            files.remove(entry)
        elif self._begun and not any(one.name == _ICI_IMAGE for one in files):
            files.append(ImageFile(name=_ICI_IMAGE))
        del restore.manifest.files[:]
        restore.manifest.files.extend(files)

    def _entry(self) -> ImageFile:
        return ImageFile(name=_ICI_IMAGE, size_bytes=self._size, sha256=self._digest.digest())


class Speech:
    """Our side of a session with such a partner: what we say, as it says it, and the other way round.

    :param version: the partner's, as its hello says it.
    """

    def __init__(self, version: str) -> None:
        self._version = version
        self._said, self._heard = Image(), Image()
        self._held: list[pb.HeldSocket] = []

    def frames(self, said: Said, kind: str) -> Iterator[tuple[str, Message, bytes]]:
        """The frames that *said* becomes: kind, message, payload, which there is none of here."""
        for name, message in self._frames(said, kind):
            yield name, message, b""

    def _frames(self, said: Said, kind: str) -> Iterator[tuple[str, Message]]:
        if isinstance(said, Piece):
            if said.hard_link:
                raise MigrateError(_NO_NAMES.format(said.name, said.hard_link), hint=_UPGRADE)
            message = payloads.chunk(said)
            message.data = said.data
            yield kind, message
        elif isinstance(said, Packets):
            yield kind, pb.GapPackets(packets=said.packets)
        elif isinstance(said, Connections):
            self._held += said.sockets
            yield from (("image", chunk) for chunk in self._said.chunks(said.records))
        elif isinstance(said, pb.Restore):
            yield kind, self._restore(said)
        elif isinstance(said, pb.Hello):
            yield kind, self._hello(said)
        elif isinstance(said, pb.HostInventory):
            yield kind, self._host(said)
        else:
            yield kind, said

    def unheard(self, said: Said) -> list[str]:
        """What of *said* the partner will pass over: sentences for the user."""
        if not isinstance(said, pb.Restore):
            return []
        return [
            f"the destination's migrate {self._version} speaks protocol {NUMBER}, which has less: {what}"
            for path, what in PASSED_OVER.items()
            if _has(said, path)
        ]

    def _restore(self, said: pb.Restore) -> pb.Restore:
        message = pb.Restore()
        message.CopyFrom(said)
        message.ClearField("connections")
        message.sockets.extend(self._held)
        self._said.enter(message)
        return message

    def _hello(self, said: pb.Hello) -> pb.Hello:
        """Its driver looks for its own version in our answer, and refuses another one."""
        message = pb.Hello()
        message.CopyFrom(said)
        message.version = self._version
        message.ClearField("oldest_protocol")
        return message

    def _host(self, said: pb.HostInventory) -> pb.HostInventory:
        """Here, too: it compares this with its own host's."""
        message = pb.HostInventory()
        message.CopyFrom(said)
        message.version = self._version
        return message

    def heard(self, kind: str, message: Any, payload: bytes) -> tuple[str, Said]:
        """What has come, as we say it. :raises ProtocolError: what is not of this protocol."""
        newer = isinstance(message, pb.FileChunk) and bool(message.hard_link)
        if payload or newer or isinstance(message, pb.Connections):
            raise ProtocolError(f"received a frame ({kind}) that protocol {NUMBER} has not")
        if isinstance(message, pb.FileChunk):
            if kind == "image" and self._heard.take(message):
                return "connections", Connections(message.data)
            return kind, payloads.piece(message, message.data)
        if isinstance(message, pb.GapPackets):
            return kind, Packets(list(message.packets))
        if isinstance(message, pb.Restore):
            self._heard.leave(message)
        return kind, message


def _has(message: Any, path: str) -> bool:
    name, _, rest = path.partition(".")
    value = getattr(message, name)
    return any(_has(one, rest) for one in value) if rest else bool(value)
