"""ICI <-> the bytes of an ICI image: the record format of images/README.md, section 1.

An image is any number of records one after the other; bytes in, values out, no I/O. The reader trusts
nothing: whatever it is given, it returns an :class:`~tcpcp.record.ici.Ici` or raises
:class:`~tcpcp.errors.CodecError`. Whether the values make sense to TCP is the business of
:mod:`tcpcp.record.checks`.

Compatibility: there is one format version, and every change of the format, even an added field, raises
it. A reader refuses every version but its own, because an endpoint rebuilt without a field that its
writer thought necessary is an endpoint that contradicts itself in front of the peer.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import operator
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from tcpcp.errors import CodecError, WrongArgument
from tcpcp.pb import ici_pb2 as pb
from tcpcp.record import addresses, whole
from tcpcp.record import ici as model
from tcpcp.record.ici import Endpoint, Ici

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: As in PNG: a byte no text has, a name, and line ends that a text-mode transfer would change.
MAGIC = b"\x89ICI\r\n\x1a\n"
#: magic, version, reserved (0), length of the message, CRC-32 of everything else in the record.
HEADER = struct.Struct(">8sHHII")
#: Two queues (:data:`tcpcp.record.checks.MAX_QUEUE_BYTES`) and what is beside them.
MAX_MESSAGE_BYTES = 257 << 20

#: A message has room for more.
_MAX_PORT = 65535
_NO_MEMORY = "there is not enough memory for it"

Buffer = bytes | bytearray | memoryview

_REQUIRED = ("local", "peer", "negotiated", "window", "congestion", "send_queue", "receive_queue")


def dumps(ici: Ici) -> bytes:
    """One record holding *ici*.

    :raises CodecError: a value does not fit the format, e.g. a sequence number over 2**32 - 1.
    :raises WrongArgument: it is none.
    """
    if not isinstance(ici, Ici):
        raise WrongArgument(f"not an Ici but {type(ici).__name__}: get() makes one of a socket")
    try:
        payload = message(ici).SerializeToString(deterministic=True)
    except (EncodeError, MemoryError):  # all fields are there, and fit: what it says is no help
        raise CodecError(f"{ici}: cannot be written: {_NO_MEMORY}") from None
    if len(payload) > MAX_MESSAGE_BYTES:
        raise CodecError(f"{ici}: {len(payload)} bytes, a record holds at most {MAX_MESSAGE_BYTES}")
    crc = _crc(model.VERSION, 0, payload)
    return HEADER.pack(MAGIC, model.VERSION, 0, len(payload), crc) + payload


def size(ici: Ici) -> int:
    """Length in bytes of what :func:`dumps` returns for *ici* (paper 3.2, tcpcp_size).

    :raises CodecError: as :func:`dumps`.
    """
    return HEADER.size + message(ici).ByteSize()


def loads(data: Buffer) -> Ici:
    """The ICI in *data*, which holds exactly one record.

    :raises CodecError: it does not; the message names the offset and what was expected there. Or there is
        not enough memory for it.
    """
    view = view_of(data)
    ici, end = _record(view, 0)
    if end != len(view):
        raise CodecError(f"offset {end}: expected the end after one record, found {len(view) - end} bytes")
    return ici


def loads_many(data: Buffer) -> Iterator[Ici]:
    """Every ICI of an image, in order; none for no bytes.

    :raises CodecError: at the first malformed record, after the ICIs before it have been yielded; or as
        :func:`loads`.
    """
    view = view_of(data)
    offset = 0
    while offset < len(view):
        ici, offset = _record(view, offset)
        yield ici


def whole_records(data: Buffer) -> int:
    """How many bytes of *data*, the beginning of an image, are records that have arrived whole.

    Looks at the lengths alone: what is wrong otherwise :func:`loads_many` finds.
    """
    view, offset = view_of(data), 0
    while offset + HEADER.size <= len(view):
        length: int = HEADER.unpack_from(view, offset)[3]
        if length > MAX_MESSAGE_BYTES:
            return len(view)  # it will never be whole
        if offset + HEADER.size + length > len(view):
            break
        offset += HEADER.size + length
    return offset


def view_of(data: Buffer) -> memoryview:
    """*data*, byte by byte.

    :raises WrongArgument: it is not bytes, or not one after the other.
    """
    try:
        return memoryview(data).cast("B")
    except (TypeError, ValueError):
        raise WrongArgument(f"not bytes but {type(data).__name__}") from None


def _crc(version: int, reserved: int, payload: Buffer) -> int:
    """The header's own numbers count too, so that any one changed bit of a record is found."""
    return zlib.crc32(payload, zlib.crc32(struct.pack(">HHI", version, reserved, len(payload))))


def _record(view: memoryview, offset: int) -> tuple[Ici, int]:
    """The record at *offset* and the offset after it."""
    start, end = offset + HEADER.size, _record_end(view, offset)
    _, version, reserved, _, crc = HEADER.unpack_from(view, offset)
    payload = view[start:end]
    if _crc(version, reserved, payload) != crc:
        raise CodecError(f"offset {offset}: the record was changed: its CRC-32 does not match")
    if reserved:
        raise CodecError(f"offset {offset + 10}: expected 0 in the reserved field, found {reserved}")
    msg = pb.Ici()
    try:
        msg.ParseFromString(bytes(payload))
        return from_message(msg), end
    except MemoryError:
        raise CodecError(f"offset {start}: {_NO_MEMORY}") from None
    except DecodeError:  # upb has no other for want of memory
        raise CodecError(
            f"offset {start}: expected a protobuf message of {end - start} bytes, or {_NO_MEMORY}"
        ) from None
    except CodecError as error:
        raise CodecError(f"offset {start}: {error}") from None


def _record_end(view: memoryview, offset: int) -> int:
    """Where the record at *offset* ends, when its header makes sense and all of it is there."""
    left = len(view) - offset
    found = bytes(view[offset : offset + len(MAGIC)])
    if found != MAGIC[: len(found)]:
        raise CodecError(f"offset {offset}: expected an ICI record, {MAGIC!r}, found {found!r}")
    if left < HEADER.size:
        raise CodecError(f"offset {offset}: expected a header of {HEADER.size} bytes, found {left}")
    _, version, _, length, _ = HEADER.unpack_from(view, offset)
    if version != model.VERSION:
        raise CodecError(
            f"offset {offset + 8}: the record has format version {version}, this tcpcp reads version"
            f" {model.VERSION}: use the same tcpcp on both hosts"
        )
    if length > MAX_MESSAGE_BYTES:
        raise CodecError(f"offset {offset + 12}: length {length} is over the limit of {MAX_MESSAGE_BYTES}")
    if length > left - HEADER.size:
        raise CodecError(
            f"offset {offset + HEADER.size}: cut short: expected {length} bytes, found {left - HEADER.size}"
        )
    return offset + HEADER.size + int(length)


def message(ici: Ici) -> pb.Ici:
    """*ici* as a protobuf message, to be put into another one.

    :raises CodecError: a value does not fit the format, is None or of another kind.
    """
    if found := whole.problems(ici):  # protobuf would take None for not set, which is 0
        raise CodecError(f"{ici}: cannot be written: {'; '.join(found)}")
    try:
        return _message(ici)
    except (ValueError, TypeError, OverflowError, EncodeError) as error:
        raise CodecError(f"{ici}: cannot be written: {error}") from None


def _message(ici: Ici) -> pb.Ici:
    if ici.version != model.VERSION:
        raise ValueError(f"version {ici.version}, this tcpcp writes version {model.VERSION}")
    written = pb.Ici(
        version=ici.version,
        tag=ici.tag,
        state=model.State(ici.state).name,
        local=_endpoint_values(ici.local),
        peer=_endpoint_values(ici.peer),
        ipv6_socket=ici.ipv6_socket,
        device=ici.device,
        negotiated=_values(ici.negotiated),
        snd_nxt=ici.snd_nxt,
        rcv_nxt=ici.rcv_nxt,
        window=_values(ici.window),
        timestamp=_values(ici.timestamp) if ici.timestamp else None,
        congestion=_values(ici.congestion),
        send_queue=_values(ici.send_queue),
        receive_queue=_values(ici.receive_queue),
        socket_filter=ici.socket_filter,
    )
    written.MergeFromString(_options_written(tuple(sorted(ici.options.items()))))
    return written


@functools.lru_cache(256)
def _options_written(options: tuple[tuple[str, int], ...]) -> bytes:
    """A message with *options* alone. Most connections of a server have the same, and bytes merge quickly."""
    entries = [pb.SocketOption(name=name, value=value) for name, value in options]
    return pb.Ici(options=entries).SerializeToString(deterministic=True)


def _endpoint_values(endpoint: Endpoint) -> dict[str, Any]:
    if isinstance(endpoint.ip, ipaddress.IPv6Address):
        if endpoint.ip.scope_id:
            raise ValueError(f"{endpoint.ip}: the scope belongs into Ici.device")
        if endpoint.ip.packed.startswith(addresses.MAPPED):
            raise ValueError(f"{endpoint.ip}: an IPv4-mapped address is written as IPv4")
    if not 0 <= endpoint.port <= _MAX_PORT:
        raise ValueError(f"port {endpoint.port}: must be 0 to {_MAX_PORT}")
    return {"ip": endpoint.ip.packed, "port": endpoint.port}


def from_message(msg: pb.Ici) -> Ici:
    """The ICI in a message that was part of another one.

    :raises CodecError: a field is missing, unknown, or holds what no ICI can hold.
    """
    if msg.version != model.VERSION:
        raise CodecError(f"the ICI has version {msg.version}, this tcpcp reads version {model.VERSION}")
    for name in _REQUIRED:
        if not msg.HasField(name):
            raise CodecError(f"expected the field {name}, which is missing")
    _refuse_unknown(msg)
    return Ici(
        version=msg.version,
        tag=msg.tag,
        state=_state(msg.state),
        local=_endpoint(msg.local, "local"),
        peer=_endpoint(msg.peer, "peer"),
        ipv6_socket=msg.ipv6_socket,
        device=msg.device,
        negotiated=_negotiated(*_picked(msg.negotiated, model.Negotiated)),
        snd_nxt=msg.snd_nxt,
        rcv_nxt=msg.rcv_nxt,
        window=model.Window(*_picked(msg.window, model.Window)),
        timestamp=_timestamp(msg),
        congestion=model.Congestion(*_picked(msg.congestion, model.Congestion)),
        send_queue=model.SendQueue(*_picked(msg.send_queue, model.SendQueue)),
        receive_queue=model.ReceiveQueue(*_picked(msg.receive_queue, model.ReceiveQueue)),
        options=_options(msg),
        socket_filter=msg.socket_filter,
    )


#: The handshakes of most connections of a server agree on the same.
_negotiated = functools.lru_cache(256)(model.Negotiated)


@functools.cache
def _getter(kind: type[DataclassInstance]) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    """The names of the fields of a dataclass, and what gets them all from it, or from a message with the same."""
    names = tuple(field.name for field in dataclasses.fields(kind))
    return names, operator.attrgetter(*names)


def _values(value: DataclassInstance) -> dict[str, Any]:
    """The fields of a dataclass, without copying what is in them."""
    names, get = _getter(type(value))
    return dict(zip(names, get(value), strict=True))


def _picked(msg: Message, kind: type[DataclassInstance]) -> tuple[Any, ...]:
    """The values in *msg* of the fields of a dataclass whose names are the same, in the dataclass's order."""
    return _getter(kind)[1](msg)


def _state(number: int) -> model.State:
    try:
        return model.State(number)
    except ValueError:
        raise CodecError(f"expected a state, 1 to {max(model.State)}, found {number}") from None


def _endpoint(msg: pb.Endpoint, which: str) -> Endpoint:
    return Endpoint(_address(msg.ip, which), msg.port)


@functools.lru_cache(4096)
def _address(packed: bytes, which: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if len(packed) not in (4, 16):
        raise CodecError(f"expected 4 or 16 bytes in {which}.ip, found {len(packed)}")
    ip = ipaddress.ip_address(packed)
    if addresses.plain(packed) != packed:
        raise CodecError(f"expected an IPv4-mapped address to be written as IPv4 in {which}.ip, found {ip}")
    return ip


def _timestamp(msg: pb.Ici) -> model.Timestamp | None:
    if not msg.HasField("timestamp"):
        return None
    stamp = msg.timestamp
    recent = stamp.ts_recent if stamp.HasField("ts_recent") else None
    return model.Timestamp(stamp.value, stamp.microseconds, recent)


def _options(msg: pb.Ici) -> dict[str, int]:
    options = {option.name: option.value for option in msg.options}
    if len(options) != len(msg.options):
        raise CodecError("expected every socket option once, found one twice")
    return options


def _refuse_unknown(msg: pb.Ici) -> None:
    """Refuse fields that this version does not have, in *msg* or any of its parts.

    Each part is looked at: a copy without them, to compare with, takes the queues' memory once more, and upb may
    crash where there is none.
    """
    parts = [getattr(msg, name) for name in (*_REQUIRED, "timestamp")]
    for part in (msg, *parts, *msg.options):
        unknown = UnknownFieldSet(part)
        if len(unknown):
            where = part.DESCRIPTOR.name
            raise CodecError(f"expected no field of number {unknown[0].field_number} in {where}")
