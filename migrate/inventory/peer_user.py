"""Who a unix socket says is at its other end (SO_PEERCRED): after the move it is root, who has made it there.

Source: man unix(7); net/core/sock.c cred_to_ucred(). It is who connected, made the pair, or called listen(2) there.
"""

from __future__ import annotations

import contextlib
import socket
import struct

_UCRED = struct.Struct("=iII")
#: (uid_t) -1: there is nobody.
_NOBODY = (1 << 32) - 1


def other_than_root(sock: socket.socket) -> str:
    """User and group by their numbers, ``1000:1000``; "" where there is nobody, or root."""
    with contextlib.suppress(OSError):
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        _, user, group = _UCRED.unpack(found)
        if user != _NOBODY and (user, group) != (0, 0):
            return f"{user}:{group}"
    return ""
