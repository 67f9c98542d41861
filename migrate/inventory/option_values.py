"""Gets and sets one option of `option_table`, as it travels: a number, bytes, or the name of an interface."""

from __future__ import annotations

import os
import socket
import sys
from typing import Literal

from migrate.inventory.option_table import Option, Shape

Value = int | bytes

#: More than any of these options has; what is longer would be cut off.
MOST_BYTES = 256


def get(sock: socket.socket, option: Option) -> Value:
    """What *sock* has. :raises OSError: this kernel, or this kind of socket, has not got it."""
    if option.shape is Shape.BYTES:
        return sock.getsockopt(option.level, option.number, MOST_BYTES)
    if option.shape is Shape.NUMBER:
        return sock.getsockopt(option.level, option.number)
    return _name(int.from_bytes(sock.getsockopt(option.level, option.number, 4), _order(option)))


def put(sock: socket.socket, option: Option, value: Value) -> None:
    """Set it. :raises OSError: the kernel refuses, or there is no such interface here."""
    if option.shape in (Shape.INTERFACE, Shape.INTERFACE_OF_NETWORK) and isinstance(value, bytes):
        index = socket.if_nametoindex(os.fsdecode(value)) if value else 0
        value = index.to_bytes(4, _order(option))
    sock.setsockopt(option.level, option.number, value)


def told(option: Option, value: Value) -> str:
    """*value* for a person."""
    if isinstance(value, int):
        return str(value)
    return value.hex() if option.shape is Shape.BYTES else value.decode(errors="replace")


def _order(option: Option) -> Literal["little", "big"]:
    return "big" if option.shape is Shape.INTERFACE_OF_NETWORK else sys.byteorder


def _name(index: int) -> bytes:
    """b"" for none; of one that is gone a name that no interface can have."""
    try:
        return os.fsencode(socket.if_indextoname(index)) if index else b""
    except OSError:
        return b"interface %d" % index
