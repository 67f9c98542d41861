"""Ports of bridges that are new, from which no reset goes out: a container that is restored has no sockets yet.

A runtime brings a container's address up before CRIU runs, and whatever reaches it there is answered with a reset,
which ends a connection for good. Nobody says before that a container is going to be restored, so the ports of
this host's bridges are muted from their birth, for some seconds, and for nothing but that one answer: a reset to a
segment of a connection that is not known there, which is one without an acknowledgement (RFC 9293, 3.10.7.1). What
is new, a connection that is refused for one, is answered as ever.

One table ``bridge tcpcp-new-ports``. Source: nft(8).
"""

from __future__ import annotations

import socket
import time

from tcpcp.criu import muting
from tcpcp.kernel import nft

TABLE = "bridge tcpcp-new-ports"
_RULES = """
add set {t} settled {{ type iface_index; }}
add chain {t} resets {{ type filter hook prerouting priority -300; policy accept; }}
add rule {t} resets meta iif @settled accept
add rule {t} resets tcp flags & (rst | ack) == rst meta l4proto @armed drop
"""


class NewPorts(muting.Muting):
    """The table, in the network namespace of the calling thread, and who is new.

    :raises IsolationError: this kernel has no filter for bridges; then nothing was made.
    """

    WHO = "new ports of bridges"

    def __init__(self) -> None:
        self._settled = {index for index, _ in socket.if_nameindex()}
        self._born: dict[int, float] = {}
        super().__init__(TABLE, _RULES.format(t=TABLE) + _settle(self._settled))

    def look(self) -> float:
        """Note what is new. :return: as :meth:`tick`."""
        self._changed()  # what counts is what is there now
        there, now = {index for index, _ in socket.if_nameindex()}, time.monotonic()
        self._settled &= there
        self._born = {index: self._born.get(index, now) for index in there - self._settled}
        return self.tick()

    def tick(self) -> float:
        """Let those speak that are not new any more.

        :return: seconds after which it is to be called again.
        :raises IsolationError: the kernel refuses.
        """
        now = time.monotonic()
        if old := {index for index, born in self._born.items() if now - born >= muting.NEW_S}:
            nft.run(_settle(old))
            self._settled |= old
            self._born = {index: born for index, born in self._born.items() if index not in old}
        due = [one + muting.NEW_S - now for one in self._born.values()]
        return max(0.1, min([super().tick(), *due]))


def _settle(indices: set[int]) -> str:
    elements = ", ".join(map(str, sorted(indices)))
    return f"add element {TABLE} settled {{ {elements} }}\n" if elements else ""
