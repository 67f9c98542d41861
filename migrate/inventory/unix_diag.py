"""The kernel's table of unix sockets: one dump over NETLINK_SOCK_DIAG.

Source: man sock_diag(7); include/uapi/linux/unix_diag.h.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from tcpcp import diag

#: struct unix_diag_req: family, protocol, padding, states, inode, what to show, cookie.
_REQUEST = struct.Struct("=BBHIII8x")
#: struct unix_diag_msg: family, type, state, padding, inode, cookie.
_MESSAGE = struct.Struct("=BBBxI8x")
_NUMBER = struct.Struct("=I")

_SHOW_NAME, _SHOW_PEER = 1, 4
_NAME, _PEER = 0, 2


class UnixSocket(NamedTuple):
    """One unix socket.

    :ivar kind: SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
    :ivar peer: inode of the socket at the other end, or 0.
    :ivar name: path, or abstract name with ``@`` in front, or "".
    """

    inode: int
    kind: int
    peer: int
    name: str


def sockets() -> dict[int, UnixSocket]:
    """Return the unix sockets of this network namespace by inode.

    :raises tcpcp.errors.KernelError: the kernel has no unix_diag.
    """
    request = _REQUEST.pack(socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _SHOW_NAME | _SHOW_PEER)
    found = (_parse(part, begin, end) for part, begin, end in diag.query(request, "unix"))
    return {one.inode: one for one in found}


def _parse(part: bytes, begin: int, end: int) -> UnixSocket:
    _, kind, _, inode = _MESSAGE.unpack_from(part, begin)
    peer, name = 0, ""
    for attribute, value in diag.attributes(part, begin + _MESSAGE.size, end):
        if attribute == _NAME:
            name = value.decode("utf-8", "replace").rstrip("\0").replace("\0", "@")
        elif attribute == _PEER:
            peer = _NUMBER.unpack(value)[0]
    return UnixSocket(inode, kind, peer, name)
