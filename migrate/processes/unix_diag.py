"""The kernel's table of unix sockets: one dump over NETLINK_SOCK_DIAG.

Source: man sock_diag(7); include/uapi/linux/unix_diag.h.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from tcpcp.kernel import diag

#: struct unix_diag_req: family, protocol, padding, states, inode, what to show, cookie.
_REQUEST = struct.Struct("=BBHIII8x")
#: struct unix_diag_msg: family, type, state, padding, inode, cookie.
_MESSAGE = struct.Struct("=BBBxI8x")
_NUMBER = struct.Struct("=I")

_LISTEN = 10
_SHOW_NAME, _SHOW_VFS, _SHOW_PEER, _SHOW_ICONS, _SHOW_QUEUES = 1, 2, 4, 8, 16
_NAME, _VFS, _PEER, _ICONS, _QUEUES, _SHUT = 0, 1, 2, 3, 4, 6
#: Of a socket that is shut in one direction: it receives no more. Source: include/net/sock.h RCV_SHUTDOWN.
RECEIVING = 1
#: struct unix_diag_rqlen: bytes to be read, bytes that the other end has not read; other things of a listener.
_LENGTHS = struct.Struct("=II")


class UnixSocket(NamedTuple):
    """One unix socket.

    :ivar kind: SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
    :ivar peer: inode of the socket at the other end, or of the listener that has not accepted it yet, or 0.
    :ivar file_inode: the lower 32 bits of the inode that it is bound to, or 0.
    :ivar unsent: bytes that nobody has read at the other end; of a listener how many connections may wait.
    :ivar waiting: nobody has accepted the connection yet.
    :ivar unread: bytes that wait to be read; of a listener connections that wait to be accepted.
    :ivar name: path, or abstract name with ``@`` in front, or "".
    :ivar shut: whether it receives no more (:data:`RECEIVING`), or sends no more (2), or both.
    """

    inode: int
    kind: int
    peer: int
    name: str
    file_inode: int = 0
    unsent: int = 0
    waiting: bool = False
    unread: int = 0
    listening: bool = False
    shut: int = 0


_SHOW = _SHOW_NAME | _SHOW_VFS | _SHOW_PEER | _SHOW_ICONS | _SHOW_QUEUES


def sockets() -> dict[int, UnixSocket]:
    """Return the unix sockets of this network namespace by inode.

    :raises tcpcp.errors.KernelError: the kernel has no unix_diag.
    """
    request = _REQUEST.pack(socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _SHOW)
    listeners: dict[int, int] = {}
    found = [
        _parse(part, begin, end, listeners) for part, begin, end in diag.query(request, "unix", _MESSAGE.size)
    ]
    return {
        one.inode: one._replace(peer=one.peer or listeners.get(one.inode, 0), waiting=one.inode in listeners)
        for one in found
    }


def _parse(part: bytes, begin: int, end: int, listeners: dict[int, int]) -> UnixSocket:
    """Return one socket; add the connections that wait to be accepted by it to *listeners*."""
    _, kind, state, inode = _MESSAGE.unpack_from(part, begin)
    peer, name, file_inode, unread, unsent, shut = 0, "", 0, 0, 0, 0
    for attribute, value in diag.attributes(part, begin + _MESSAGE.size, end):
        if attribute == _NAME:
            name = value.decode("utf-8", "replace").rstrip("\0").replace("\0", "@")
        elif attribute == _VFS and len(value) >= _NUMBER.size:
            file_inode = _NUMBER.unpack_from(value)[0]
        elif attribute == _PEER and len(value) == _NUMBER.size:
            peer = _NUMBER.unpack(value)[0]
        elif attribute == _SHUT and len(value) == 1:
            shut = value[0]
        elif attribute == _QUEUES and len(value) == _LENGTHS.size:
            unread, unsent = _LENGTHS.unpack(value)
        elif attribute == _ICONS and len(value) % _NUMBER.size == 0:
            listeners.update((waiting, inode) for (waiting,) in _NUMBER.iter_unpack(value))
    return UnixSocket(
        inode, kind, peer, name, file_inode, unsent, unread=unread, listening=state == _LISTEN, shut=shut
    )
