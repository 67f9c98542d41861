"""A table of nftables as nfnetlink messages: sets, chains, rules and the expressions of rules. Pure.

The text of nft(8) could say most of it, but not the flag ``persist`` before nftables 1.1; and a table belongs
to the netlink socket that made it, which must be ours and not libnftables'.

Source: include/uapi/linux/netfilter/nf_tables.h; net/netfilter/nf_tables_api.c, nft_meta.c, nft_payload.c.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from typing import NamedTuple

from tcpcp.kernel.nft_elements import CREATE, GENERAL_BYTES, NESTED, Message, attribute, attributes, text

#: Flags of a table: only the socket that made it may change it; it outlives that socket (Linux 6.9).
OWNER, PERSIST = 2, 4
#: What the kernel says of a flag that it does not know.
NO_SUCH_FLAG = frozenset({errno.EOPNOTSUPP, errno.EINVAL})
#: Hooks that see what reaches, or leaves, a socket of this host (include/uapi/linux/netfilter.h).
LOCAL_IN, LOCAL_OUT = 1, 3
DROP, ACCEPT = 0, 1
_GOTO = -4
#: Keys of the expression meta.
PRIORITY, MARK, NFPROTO, L4PROTO = 2, 3, 15, 16

_NEW_TABLE, GET_TABLE, _DEL_TABLE, _NEW_CHAIN, _NEW_RULE, _NEW_SET, GET_ELEMENTS = 0, 1, 2, 3, 6, 9, 13
_APPEND = 0x800
_SET_TIMEOUT = 0x10
#: A key of the expression socket.
_TRANSPARENT = 0
#: The first of the registers of four bytes.
_REGISTER = 8
#: How many elements a set of connections takes. A set that rules delete from has a limit, 65535 where none is named
#: (nft_dynset_init()). Of a number that is named the lower 16 bits say how much room is taken at once: 3, as where
#: none is (nft_rhash_init(), struct rhashtable_params).
_MOST_FLOWS = 1 << 24 | 3
#: NFT_DYNSET_OP_DELETE.
_DELETE = 2
_NETWORK, _TRANSPORT = 1, 2
#: Where the flags are in a TCP header.
_FLAGS = 13
#: A UDP header; its length, which counts the header, is in it at 4.
_UDP_BYTES = 8
#: nft(8)'s numbers for the types of a key's fields, 6 bits each, so that its listing makes sense of them.
_PORT_TYPE, _ADDRESS_TYPES = 13, {4: 7, 16: 8}
#: AF_INET and AF_INET6, where the source and the destination are in a packet's header, by an address's length.
_FAMILY, _SOURCE, _DESTINATION = {4: 2, 16: 10}, {4: 12, 16: 8}, {4: 16, 16: 24}


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value))


def nest(kind: int, *parts: bytes) -> bytes:
    """A netlink attribute that holds others."""
    return attribute(kind | NESTED, b"".join(parts))


def table(name: str, flags: int) -> Message:
    """Makes the table inet *name*; what is there already is an error where *flags* differ."""
    return Message(_NEW_TABLE, CREATE, text(1, name) + (_number(2, flags) if flags else b""))


class Table(NamedTuple):
    """A table as the kernel describes it.

    :ivar orphaned: it has outlived its owner: it will not change any more, and anybody may delete it.
    """

    name: str
    orphaned: bool


def described(body: bytes) -> Table:
    """The table in a message of the kernel's; one without a name where it makes no sense."""
    fields = dict(attributes(body[GENERAL_BYTES:]))
    flags = int.from_bytes(fields.get(2, b""), "big")
    return Table(fields.get(1, b"").rstrip(b"\0").decode("utf-8", "replace"), flags == PERSIST)


def deletion(name: str) -> Message:
    """Deletes the table inet *name* with all that is in it."""
    return Message(_DEL_TABLE, 0, text(1, name))


def flow_set(table_name: str, name: str, number: int, address_bytes: int) -> Message:
    """Makes a set of connections, :func:`tcpcp.kernel.nft_elements.flow_key`, whose elements may expire.

    :param number: another one for each set of a batch.
    """
    address = _ADDRESS_TYPES[address_bytes]
    kind = ((address << 6 | _PORT_TYPE) << 6 | address) << 6 | _PORT_TYPE
    most = nest(9, _number(1, _MOST_FLOWS))
    return _set(table_name, name, number, kind, 2 * (address_bytes + 4), most)


def place_set(table_name: str, name: str, number: int, address_bytes: int) -> Message:
    """Makes a set of addresses with ports, each field at a multiple of 4 bytes, whose elements may expire.

    :param number: another one for each set of a batch. :param address_bytes: 0: of ports alone.
    """
    if not address_bytes:
        return _set(table_name, name, number, _PORT_TYPE, 2)
    return _set(table_name, name, number, _ADDRESS_TYPES[address_bytes] << 6 | _PORT_TYPE, address_bytes + 4)


def _set(table_name: str, name: str, number: int, kind: int, size: int, most: bytes = b"") -> Message:
    fields = _number(3, _SET_TIMEOUT) + _number(4, kind) + _number(5, size) + most + _number(10, number)
    return Message(_NEW_SET, CREATE, text(1, table_name) + text(2, name) + fields)


def branch(table_name: str, name: str) -> Message:
    """Makes a chain that only :func:`goto` leads to."""
    return Message(_NEW_CHAIN, CREATE, text(1, table_name) + text(3, name))


def chain(table_name: str, name: str, hook: int, priority: int) -> Message:
    """Makes a base chain of type filter that accepts what its rules do not decide."""
    where = nest(4, _number(1, hook), attribute(2, struct.pack("!i", priority)))
    return Message(
        _NEW_CHAIN,
        CREATE,
        text(1, table_name) + text(3, name) + where + _number(5, ACCEPT) + text(7, "filter"),
    )


def rule(table_name: str, chain_name: str, *expressions: Sequence[bytes]) -> Message:
    """Appends a rule; each of *expressions* is what one of the functions below returns."""
    listed = b"".join(one for parts in expressions for one in parts)
    return Message(
        _NEW_RULE, CREATE | _APPEND, text(1, table_name) + text(2, chain_name) + nest(4, listed)
    )  # fmt: skip


def _expression(name: str, *fields: bytes) -> bytes:
    return nest(1, text(1, name), nest(2, *fields))


def _compare(operator: int, value: bytes) -> bytes:
    return _expression("cmp", _number(1, _REGISTER), _number(2, operator), nest(3, attribute(1, value)))


def _load(key: int) -> bytes:
    return _expression("meta", _number(2, key), _number(1, _REGISTER))


def is_equal(key: int, value: bytes) -> list[bytes]:
    """Goes on where the packet's meta *key* is *value*."""
    return [_load(key), _compare(0, value)]


def is_other(key: int, value: bytes) -> list[bytes]:
    """Goes on where the packet's meta *key* is not *value*."""
    return [_load(key), _compare(1, value)]


def is_flow(set_name: str, address_bytes: int, *, outward: bool) -> list[bytes]:
    """Goes on where the connection of the packet, a TCP segment, is in the set *set_name*.

    :param outward: this host is the sender.
    """
    lookup = _expression("lookup", text(1, set_name), _number(2, _REGISTER))
    return [*_load_flow(address_bytes, outward=outward), lookup]


def forget_flow(set_name: str, address_bytes: int, *, outward: bool) -> list[bytes]:
    """Takes the connection of the packet, a TCP segment of that IP version, out of the set *set_name*.

    Source: net/netfilter/nft_dynset.c nft_dynset_eval(); Linux 5.4.
    """
    return [*_load_flow(address_bytes, outward=outward), _forget(set_name)]


def _forget(set_name: str) -> bytes:
    return _expression("dynset", text(1, set_name), _number(3, _DELETE), _number(4, _REGISTER))


def _load_flow(address_bytes: int, *, outward: bool) -> list[bytes]:
    """Loads what tells connections apart; goes on where the packet is of that IP version."""
    ends = [(_SOURCE[address_bytes], 0), (_DESTINATION[address_bytes], 2)]
    register, loads = _REGISTER, []
    for address, port in ends if outward else reversed(ends):
        loads.append(_payload(_NETWORK, address, address_bytes, register))
        register += address_bytes // 4
        loads.append(_payload(_TRANSPORT, port, 2, register))
        register += 1
    return [*is_equal(NFPROTO, bytes([_FAMILY[address_bytes]])), *loads]


def has_datagram(bytes_: int) -> list[bytes]:
    """Goes on where the packet is a UDP datagram with so many bytes of data."""
    length = struct.pack("!H", _UDP_BYTES + bytes_)
    return [*is_equal(L4PROTO, b"\x11"), _payload(_TRANSPORT, 4, 2, _REGISTER), _compare(0, length)]


def has_other_data(offset: int, value: bytes) -> list[bytes]:
    """Goes on where a UDP datagram does not have *value* from *offset* on in its data."""
    return [_payload(_TRANSPORT, _UDP_BYTES + offset, len(value), _REGISTER), _compare(1, value)]


def forget_data(set_name: str, offset: int, size: int) -> list[bytes]:
    """Takes what a UDP datagram has in its data, the key of an element, out of the set *set_name*.

    Source: net/netfilter/nft_dynset.c nft_dynset_eval(); Linux 5.4.
    """
    return [_payload(_TRANSPORT, _UDP_BYTES + offset, size, _REGISTER), _forget(set_name)]


def is_reset() -> list[bytes]:
    """Goes on where the packet, a TCP segment, is a reset and nothing else, as what finds no socket draws it."""
    return has_tcp_flags(0x04, 0xFF)


def is_for(set_name: str, address_bytes: int, *, any_address: bool) -> list[bytes]:
    """Goes on where the destination of the packet, a TCP segment, is in the set *set_name*.

    :param any_address: the set has ports alone.
    """
    register, loads = _REGISTER, []
    if not any_address:
        loads.append(_payload(_NETWORK, _DESTINATION[address_bytes], address_bytes, register))
        register += address_bytes // 4
    loads.append(_payload(_TRANSPORT, 2, 2, register))
    lookup = _expression("lookup", text(1, set_name), _number(2, _REGISTER))
    return [*is_equal(NFPROTO, bytes([_FAMILY[address_bytes]])), *loads, lookup]


def has_tcp_flags(flags: int, among: int) -> list[bytes]:
    """Goes on where of the flags *among*, a mask, the TCP segment has just *flags*."""
    masked = _bitwise(bytes([among]), bytes(1))
    return [_payload(_TRANSPORT, _FLAGS, 1, _REGISTER), masked, _compare(0, bytes([flags]))]


def _bitwise(mask: bytes, other: bytes) -> bytes:
    """What is loaded and *mask*, exclusive or *other*."""
    data = [nest(kind, attribute(1, value)) for kind, value in ((4, mask), (5, other))]
    registers = _number(1, _REGISTER), _number(2, _REGISTER), _number(3, len(mask))
    return _expression("bitwise", *registers, *data)


def _payload(base: int, offset: int, length: int, register: int) -> bytes:
    fields = _number(1, register), _number(2, base), _number(3, offset), _number(4, length)
    return _expression("payload", *fields)


def verdict(code: int) -> list[bytes]:
    """Ends the chain: :data:`DROP` or :data:`ACCEPT`."""
    return [_expression("immediate", _number(1, 0), nest(2, nest(2, _number(1, code))))]


def goto(chain_name: str) -> list[bytes]:
    """Goes on in the chain *chain_name*, a :func:`branch` of the same table, and does not come back."""
    where = nest(2, attribute(1, struct.pack("!i", _GOTO)), text(2, chain_name))
    return [_expression("immediate", _number(1, 0), nest(2, where))]


def has_socket() -> list[bytes]:
    """Goes on where this host has a socket for the packet, a TCP segment that arrives: a listener too.

    What is loaded, whether it has IP_TRANSPARENT, is there for a socket in any state, also for a handshake's.
    Source: net/netfilter/nft_socket.c nft_socket_eval(), which is a module of its own.
    """
    return [_expression("socket", _number(1, _TRANSPARENT), _number(2, _REGISTER))]


def not_tracked() -> list[bytes]:
    """Keeps the packet from connection tracking and from address translation, on its way out and in again."""
    return [nest(1, text(1, "notrack"))]


def set_priority(value: int) -> list[bytes]:
    """Gives the packet's buffer the priority *value*."""
    data = nest(2, attribute(1, struct.pack("=I", value)))
    load = _expression("immediate", _number(1, _REGISTER), data)
    return [load, _store_priority()]


def _store_priority() -> bytes:
    return _expression("meta", _number(2, PRIORITY), _number(3, _REGISTER))


class Part(NamedTuple):
    """A value in some bits of the priority of a packet's buffer: those of *among*, a mask."""

    value: int
    among: int

    def is_there(self) -> list[bytes]:
        """Goes on where it is there."""
        return self._test(0)

    def is_missing(self) -> list[bytes]:
        """Goes on where another value is there."""
        return self._test(1)

    def _test(self, operator: int) -> list[bytes]:
        masked = _bitwise(struct.pack("=I", self.among), bytes(4))
        return [_load(PRIORITY), masked, _compare(operator, struct.pack("=I", self.value))]

    def put(self) -> list[bytes]:
        """Puts it there; the other bits stay as they are."""
        return self._put(self.value)

    def clear(self) -> list[bytes]:
        """Puts 0 there."""
        return self._put(0)

    def _put(self, value: int) -> list[bytes]:
        others = struct.pack("=I", self.among ^ 0xFFFF_FFFF)
        return [_load(PRIORITY), _bitwise(others, struct.pack("=I", value)), _store_priority()]
