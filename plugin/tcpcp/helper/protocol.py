"""Bytes in, requests and replies out, and back: what client and helper say to each other. No I/O here.

Every packet (SOCK_SEQPACKET keeps their borders) begins with the same 8 bytes: ``TCPH``, the version, what it
is, and a count (2 bytes, big-endian). Sockets and ICI images travel beside it as descriptors, in this order:

=========  ======================================  ======================
request    descriptors with it                     with a good reply
=========  ======================================  ======================
GET        *count* sockets                         one image
CREATE     one image, *count* fresh sockets        none
others     *count* sockets                         none
LEAVE      none, *count* is 0                      none
=========  ======================================  ======================

An image is a sealed memfd (`descriptors`) with *count* ICI records. A reply that is a failure names an
exception of the library and has its arguments as texts, so that the client raises the same. Whatever else
arrives is refused, and the connection with it.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tcpcp import errors
from tcpcp.errors import IciError, IsolationError, KernelError, Moved, TcpcpError

MAGIC = b"TCPH"
VERSION = 1
#: No packet is longer.
MAX_PACKET_BYTES = 32768
#: Sockets in one request; the kernel passes 253 descriptors at most (include/net/scm.h SCM_MAX_FD).
MAX_SOCKETS = 240
#: Of a failure; the rest is cut off.
MAX_TEXTS, MAX_NOTES, MAX_TEXT_BYTES = 24, 4, 1000

_HEADER = struct.Struct(">4sBBH")
_FAILURE = struct.Struct(">iBB")
_LENGTH = struct.Struct(">H")
_DONE, _FAILED = 0, 1


class HelperError(TcpcpError):
    """The helper cannot be reached, has ended, or could not be understood."""


class ProtocolError(HelperError):
    """Bytes or descriptors that this protocol does not know. The connection to the helper is of no use any more."""


class Operation(enum.IntEnum):
    """What is asked for, under the names of the library; LEAVE: undo what was not finished, and good-bye."""

    GET = 1
    CREATE = 2
    ACTIVATE = 3
    RELEASE = 4
    RESUME = 5
    RENEW = 6
    LEAVE = 7


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    :ivar count: sockets that it is about, 1 to :data:`MAX_SOCKETS`; for LEAVE 0.
    """

    operation: Operation
    count: int

    @property
    def descriptors(self) -> int:
        """How many descriptors come with it."""
        return self.count + (self.operation is Operation.CREATE)


class Failure(NamedTuple):
    """An exception on its way.

    :ivar name: of its class.
    :ivar number: ``errno`` of a :class:`KernelError` or an :class:`IsolationError`, ``lost_bytes`` of a
        :class:`Moved`, else 0.
    :ivar texts: call and connection of a :class:`KernelError`, the problems of an :class:`IciError`, else its
        text.
    :ivar notes: what was added to it.
    """

    name: str
    number: int
    texts: tuple[str, ...]
    notes: tuple[str, ...] = ()


def pack_request(request: Request) -> bytes:
    """*request* as a packet.

    :raises ProtocolError: the count does not fit the operation.
    """
    _check_count(request)
    return _HEADER.pack(MAGIC, VERSION, request.operation, request.count)


def parse_request(packet: bytes) -> Request:
    """The request in *packet*.

    :raises ProtocolError: it is none.
    """
    kind, count, rest = _parse_header(packet)
    if kind not in set(Operation) or rest:
        raise ProtocolError(f"not a request: operation {kind}, {len(packet)} bytes")
    request = Request(Operation(kind), count)
    _check_count(request)
    return request


def pack_reply(failure: Failure | None = None) -> bytes:
    """A reply as a packet: *failure*, or that all went well."""
    if failure is None:
        return _HEADER.pack(MAGIC, VERSION, _DONE, 0)
    texts, notes = failure.texts[:MAX_TEXTS], failure.notes[:MAX_NOTES]
    head = _FAILURE.pack(failure.number, len(texts), len(notes))
    return _HEADER.pack(MAGIC, VERSION, _FAILED, 0) + head + b"".join(_packed([failure.name, *texts, *notes]))


def parse_reply(packet: bytes) -> Failure | None:
    """The failure in the reply *packet*, or None: all went well.

    :raises ProtocolError: it is no reply.
    """
    kind, _, body = _parse_header(packet)
    if kind == _DONE and not body:
        return None
    if kind != _FAILED or len(body) < _FAILURE.size:
        raise ProtocolError(f"not a reply: kind {kind}, {len(packet)} bytes")
    number, texts, notes = _FAILURE.unpack_from(body)
    strings = tuple(_unpacked(body, _FAILURE.size))
    if len(strings) != 1 + texts + notes:
        raise ProtocolError(f"not a reply: {len(strings)} texts instead of {1 + texts + notes}")
    return Failure(strings[0], number, strings[1 : 1 + texts], strings[1 + texts :])


def failure_of(error: TcpcpError) -> Failure:
    """*error* as it goes over the wire."""
    name = next(one.__name__ for one in type(error).__mro__ if one.__name__ in _CLASSES)
    notes = tuple(vars(error).get("__notes__", ()))
    if isinstance(error, KernelError):
        return Failure(name, error.errno, (error.call, error.connection), notes)
    if isinstance(error, IciError):
        return Failure(name, 0, tuple(error.problems), notes)
    if isinstance(error, Moved):
        return Failure(name, error.lost_bytes, (str(error),), notes)
    if isinstance(error, IsolationError):
        return Failure(name, error.errno, (str(error),), notes)
    return Failure(name, 0, (str(error),), notes)


def error_of(failure: Failure) -> TcpcpError:
    """The exception that *failure* was made of; of a class that is not known here, a :class:`HelperError`."""
    error = _error(failure)
    for note in failure.notes:
        error.add_note(note)
    return error


#: Every class that may arrive, by name. Nothing else is ever made from what arrives.
_CLASSES: dict[str, type[TcpcpError]] = {
    one.__name__: one
    for one in (*vars(errors).values(), HelperError, ProtocolError)
    if isinstance(one, type) and issubclass(one, TcpcpError)
}


def _error(failure: Failure) -> TcpcpError:
    known = _CLASSES.get(failure.name)
    if known is not None and issubclass(known, KernelError) and len(failure.texts) == 2:
        call, connection = failure.texts
        return known(call, failure.number, connection)
    if known is not None and issubclass(known, IciError):
        return known(list(failure.texts))
    text = "; ".join(failure.texts)
    if known is None or issubclass(known, KernelError):
        return HelperError(f"{failure.name}: {text}")
    return known(text, failure.number) if issubclass(known, (Moved, IsolationError)) else known(text)


def _check_count(request: Request) -> None:
    least, most = (0, 0) if request.operation is Operation.LEAVE else (1, MAX_SOCKETS)
    if not least <= request.count <= most:
        name = request.operation.name
        raise ProtocolError(f"{name} of {request.count} sockets; one request takes {least} to {most}")


def _parse_header(packet: bytes) -> tuple[int, int, bytes]:
    if len(packet) < _HEADER.size or len(packet) > MAX_PACKET_BYTES:
        raise ProtocolError(f"a packet of {len(packet)} bytes; one has {_HEADER.size} to {MAX_PACKET_BYTES}")
    magic, version, kind, count = _HEADER.unpack_from(packet)
    if magic != MAGIC:
        raise ProtocolError(f"not a packet of this protocol: {packet[: _HEADER.size]!r}")
    if version != VERSION:
        raise ProtocolError(f"protocol version {version}, here is version {VERSION}: use the same tcpcp")
    return kind, count, packet[_HEADER.size :]


def _packed(texts: Iterable[str]) -> Iterator[bytes]:
    for text in texts:
        raw = text.encode("utf-8", "replace")[:MAX_TEXT_BYTES]
        yield _LENGTH.pack(len(raw)) + raw


def _unpacked(body: bytes, offset: int) -> Iterator[str]:
    """Every text from *offset* to the end."""
    while offset < len(body):
        begin = offset + _LENGTH.size
        if begin > len(body):
            raise ProtocolError("not a reply: it is cut within a length")
        offset = begin + _LENGTH.unpack_from(body, begin - _LENGTH.size)[0]
        if offset > len(body):
            raise ProtocolError("not a reply: it is cut within a text")
        yield body[begin:offset].decode("utf-8", "replace")
