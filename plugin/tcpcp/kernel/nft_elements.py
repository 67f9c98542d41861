"""Batches of nfnetlink messages, and set elements as such: without making text of 5000 addresses. Pure.

libnftables needs 6 to 8 us for an element and the text for it another 3; this way it is 1.

Source: include/uapi/linux/netfilter/nfnetlink.h, nf_tables.h; net/netfilter/nfnetlink.c
nfnetlink_rcv_batch(), net/netfilter/nf_tables_api.c nf_tables_newsetelem().
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

_NLMSGHDR = struct.Struct("=IHHII")
_U64 = struct.Struct("!Q")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
#: struct nfgenmsg, before the attributes of a message; its last field is in network order.
_NFGENMSG = struct.Struct("!BBH")
GENERAL_BYTES = _NFGENMSG.size

_REQUEST, _ACK, CREATE = 0x1, 0x4, 0x400
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
#: include/linux/err.h MAX_ERRNO
_MOST_ERRNO = 4095
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NFTABLES = 10
_INET = 1
_MESSAGES = {"add": (12, CREATE), "delete": (14, 0)}
NESTED = 0x8000
#: NFTA_SET_ELEM_LIST_TABLE, _SET, _ELEMENTS.
_TABLE, _SET, _ELEMENTS = 1, 2, 3
#: NFTA_SET_ELEM_KEY; NFTA_SET_ELEM_TIMEOUT, NFTA_SET_ELEM_EXPIRATION, ms.
_KEY, _TIMEOUT, _EXPIRATION = 1, 4, 5
#: An attribute's length is 16 bits.
_MOST_BYTES = 60000

_KEY4 = struct.Struct("!4sHxx4sHxx")
_KEY6 = struct.Struct("!16sHxx16sHxx")
#: Of a :func:`flow_key`, by IP version.
FLOW_KEY_BYTES = {4: _KEY4.size, 6: _KEY6.size}


def flow_key(local_ip: bytes, local_port: int, peer_ip: bytes, peer_port: int) -> bytes:
    """Key in a set of type address . port . address . port: each field begins at a multiple of 4 bytes."""
    key = _KEY4 if len(local_ip) == 4 else _KEY6
    return key.pack(local_ip, local_port, peer_ip, peer_port)


class Message(NamedTuple):
    """One message of a batch: NFT_MSG_*, its flags beside NLM_F_REQUEST and NLM_F_ACK, its attributes."""

    kind: int
    flags: int
    body: bytes


def batch(messages: Sequence[Message], number: int = 0) -> bytes:
    """*messages* as one batch: all of it is carried out or nothing. Each asks for an acknowledgement.

    :param number: of the beginning; the messages are numbered from the next one on.
    """
    parts = [message(_BATCH_BEGIN, _REQUEST, number, b"", _NFTABLES, 0)]
    for position, one in enumerate(messages, number + 1):
        kind, flags = _NFTABLES << 8 | one.kind, _REQUEST | _ACK | one.flags
        parts.append(message(kind, flags, position, one.body, 0, _INET))
    parts.append(message(_BATCH_END, _REQUEST, number + len(messages) + 1, b"", _NFTABLES, 0))
    return b"".join(parts)


def request(kind: int, flags: int, body: bytes = b"", *, number: int) -> bytes:
    """One message that is no part of a batch, to ask for something."""
    return message(_NFTABLES << 8 | kind, _REQUEST | flags, number, body, 0, _INET)


def changes(verb: str, table: str, sets: Mapping[str, Sequence[bytes]], timeout_s: int = 0) -> list[Message]:
    """Messages that add to (or delete from) *sets* of the table inet *table*.

    :param verb: ``add`` or ``delete``. What is there already is added without an error; what is not there,
        or has expired, cannot be deleted.
    :param sets: keys of one length, as the set's type has them, by name of the set.
    :param timeout_s: seconds after which what is added expires; 0: never. The set must have been made for it.
    """
    kind, flags = _MESSAGES[verb]
    rest = attribute(_TIMEOUT, _U64.pack(timeout_s * 1000)) if timeout_s else b""
    found = []
    for name, keys in sets.items():
        names = of_set(table, name)
        for piece in _pieces(keys, rest):
            found.append(Message(kind, flags, names + attribute(_ELEMENTS | NESTED, piece)))
    return found


def _pieces(keys: Sequence[bytes], rest: bytes) -> Iterator[bytes]:
    """The elements: nests of NFTA_LIST_ELEM, NFTA_SET_ELEM_KEY, NFTA_DATA_VALUE, all numbered 1."""
    if not keys:
        return
    size = len(keys[0])
    tail = b"\0" * (-size % 4) + rest
    padded = size + -size % 4
    head = struct.pack(
        "=6H", padded + 12 + len(rest), 1 | NESTED, padded + 8, 1 | NESTED, size + 4, 1
    )  # fmt: skip
    most = _MOST_BYTES // (padded + 12 + len(rest))
    for start in range(0, len(keys), most):
        yield head + (tail + head).join(keys[start : start + most]) + tail


def attribute(kind: int, value: bytes) -> bytes:
    """A netlink attribute."""
    return _ATTRIBUTE.pack(len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)


def text(kind: int, value: str) -> bytes:
    """A netlink attribute that holds a name."""
    return attribute(kind, value.encode() + b"\0")


def message(kind: int, flags: int, number: int, body: bytes, resource: int, family: int) -> bytes:
    """One message to nfnetlink, whichever of its subsystems has *kind*."""
    header = _NLMSGHDR.pack(_NLMSGHDR.size + _NFGENMSG.size + len(body), kind, flags, number, 0)
    return header + _NFGENMSG.pack(family, 0, resource) + body


class Reply(NamedTuple):
    """One message of the kernel's.

    :ivar number: of the message that it answers.
    :ivar error: an error number, 0 for an acknowledgement; None: it carries something else, or is the last.
    :ivar body: what follows the netlink header.
    """

    number: int
    error: int | None
    last: bool
    body: bytes


def replies(datagram: bytes) -> Iterator[Reply]:
    """What the kernel answers, message by message.

    :raises OSError: EBADMSG, a length makes no sense: where the next message begins cannot be known.
    """
    offset = 0
    while offset < len(datagram):
        if len(datagram) - offset < _NLMSGHDR.size:
            raise _malformed()
        length, kind, _, number, _ = _NLMSGHDR.unpack_from(datagram, offset)
        if not _NLMSGHDR.size <= length <= len(datagram) - offset:
            raise _malformed()
        body = datagram[offset + _NLMSGHDR.size : offset + length]
        error = _error_number(body) if kind == _NLMSG_ERROR else None
        yield Reply(number, error, kind == _NLMSG_DONE, body)
        offset += (length + 3) & ~3


def _malformed() -> OSError:
    return OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))


def _error_number(body: bytes) -> int:
    number = -_ERROR.unpack_from(body)[0] if len(body) >= _ERROR.size else -1
    return number if 0 <= number <= _MOST_ERRNO else errno.EBADMSG


def element(key: bytes) -> bytes:
    """The attribute that names one element of a set."""
    return b"".join(attribute(_ELEMENTS | NESTED, piece) for piece in _pieces([key], b""))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and value of each attribute; one whose length makes no sense ends them."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            return
        yield kind & ~NESTED, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def of_set(table: str, set_: str) -> bytes:
    """The attributes that name a set whose elements are asked for."""
    return text(_TABLE, table) + text(_SET, set_)


class Element(NamedTuple):
    """An element of a set. :ivar left_ms: until it expires; 0: never."""

    key: bytes
    left_ms: int


def elements_in(body: bytes) -> Iterator[Element]:
    """The elements in a message of the kernel's about a set."""
    nests = [value for kind, value in attributes(body[GENERAL_BYTES:]) if kind == _ELEMENTS]
    for _, one in (element for nest in nests for element in attributes(nest)):
        fields = dict(attributes(one))
        left = fields.get(_EXPIRATION, b"")
        for _, key in attributes(fields.get(_KEY, b"")):
            yield Element(key, int.from_bytes(left, "big"))


def answers(datagram: bytes) -> Iterator[int]:
    """The error numbers in what the kernel answers; 0 is an acknowledgement, EBADMSG ends a malformed one."""
    try:
        for reply in replies(datagram):
            if reply.error is not None:
                yield reply.error
    except OSError as exc:
        yield exc.errno or errno.EBADMSG
