"""What mutes new interfaces: a table that is in force while its owner lives, and news of what comes and goes.

As in :mod:`tcpcp.endpoint.isolation` an element with a timeout holds it in force; if its owner dies it ends.

Source: nft(8); man rtnetlink(7).
"""

from __future__ import annotations

import socket
import struct
import time
from typing import ClassVar

from tcpcp.kernel import nft, routing

#: As long as a restore may take from its network to its sockets; then an interface is one like all others.
NEW_S = 15
_ARMED_S, RENEWED_S = 60, 20
_RTMGRP_LINK = 1
#: struct ifinfomsg, as far as its number.
_INDEX = struct.Struct("=BBHi")
_BEGIN = """
add table {t}
delete table {t}
add table {t}
add set {t} armed {{ type inet_proto; flags timeout; }}
"""
_ARM = "flush set {t} armed\nadd element {t} armed {{ tcp timeout {s}s }}"


class Muting:
    """A table of this name in the network namespace of the calling thread, and news of its interfaces.

    :ivar WHO: is muted, for a sentence.
    :ivar table: family and name. Its set ``armed`` has the element ``tcp`` while it is in force.
    :param rules: what is in the table beside that set.
    :raises IsolationError: this kernel cannot have it; then nothing was made.
    """

    WHO: ClassVar[str]

    def __init__(self, table: str, rules: str) -> None:
        self.table = table
        self._links = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            self._links.bind((0, _RTMGRP_LINK))
            nft.run(_BEGIN.format(t=table) + rules + _ARM.format(t=table, s=_ARMED_S))
        except BaseException:
            self._links.close()
            raise
        self._renewed = time.monotonic()

    def fileno(self) -> int:
        """Readable when an interface has changed; then :meth:`look`."""
        return self._links.fileno()

    def look(self) -> float:
        """Note what is new. :return: as :meth:`tick`. :raises IsolationError, OSError: the kernel refuses."""
        raise NotImplementedError

    def tick(self) -> float:
        """Do what is due.

        :return: seconds after which it is to be called again.
        :raises IsolationError: the kernel refuses.
        """
        now = time.monotonic()
        if now - self._renewed >= RENEWED_S:
            nft.run(_ARM.format(t=self.table, s=_ARMED_S))
            self._renewed = now
        return max(0.1, self._renewed + RENEWED_S - now)

    def close(self) -> None:
        """Mute nobody."""
        self._links.close()
        nft.run(f"add table {self.table}\ndelete table {self.table}")

    def _changed(self) -> set[int] | None:
        """Numbers of the interfaces that have changed since the last call; None: any may have."""
        found: set[int] = set()
        try:
            while datagram := self._links.recv(1 << 16):
                found.update(_INDEX.unpack_from(body)[3] for _, _, body in routing.messages(datagram))
        except BlockingIOError:
            return found
        except OSError:  # more came than fits
            pass
        return None
