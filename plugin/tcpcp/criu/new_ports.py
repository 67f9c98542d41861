"""Ports of bridges that are new, from which no reset goes out: a container that is restored has no sockets yet.

A runtime brings a container's address up before CRIU runs, and whatever reaches it there is answered with a reset,
which ends a connection for good. Nobody says before that a container is going to be restored, so the ports of
this host's bridges are muted from their birth, for some seconds, and for nothing but that one answer: a reset to a
segment of a connection that is not known there, which is one without an acknowledgement (RFC 9293, 3.10.7.1). What
is new, a connection that is refused for one, is answered as ever.

One table ``bridge tcpcp-new-ports``. As in :mod:`tcpcp.endpoint.isolation` one element with a timeout holds it in
force: if its owner dies it mutes nobody.

Source: nft(8); man rtnetlink(7).
"""

from __future__ import annotations

import socket
import time

from tcpcp.kernel import nft

TABLE = "bridge tcpcp-new-ports"
#: As long as a restore may take from its network to its sockets; then a port is one like all others.
NEW_S = 15
_ARMED_S, _RENEWED_S = 60, 20
_RTMGRP_LINK = 1
_RULES = """
add table {t}
delete table {t}
add table {t}
add set {t} armed {{ type inet_proto; flags timeout; }}
add set {t} settled {{ type iface_index; }}
add chain {t} resets {{ type filter hook prerouting priority -300; policy accept; }}
add rule {t} resets meta iif @settled accept
add rule {t} resets tcp flags & (rst | ack) == rst meta l4proto @armed drop
"""
_ARM = "flush set {t} armed\nadd element {t} armed {{ tcp timeout {s}s }}"


class NewPorts:
    """The table, in the network namespace of the calling thread, and who is new.

    :raises IsolationError: this kernel has no filter for bridges; then nothing was made.
    """

    def __init__(self) -> None:
        self._settled = {index for index, _ in socket.if_nameindex()}
        self._born: dict[int, float] = {}
        self._links = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            self._links.bind((0, _RTMGRP_LINK))
            nft.run(_RULES.format(t=TABLE) + self._settle(self._settled) + _ARM.format(t=TABLE, s=_ARMED_S))
        except BaseException:
            self._links.close()
            raise
        self._renewed = time.monotonic()

    def fileno(self) -> int:
        """Readable when an interface came or went; then :meth:`look`."""
        return self._links.fileno()

    def look(self) -> float:
        """Note what is new. :return: as :meth:`tick`."""
        try:
            while self._links.recv(1 << 16):
                pass
        except BlockingIOError:
            pass
        except OSError:  # more came than fits: what counts is what is there now
            pass
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
        if old := {index for index, born in self._born.items() if now - born >= NEW_S}:
            nft.run(self._settle(old))
            self._settled |= old
            self._born = {index: born for index, born in self._born.items() if index not in old}
        if now - self._renewed >= _RENEWED_S:
            nft.run(_ARM.format(t=TABLE, s=_ARMED_S))
            self._renewed = now
        return max(
            0.1, min([self._renewed + _RENEWED_S, *(one + NEW_S for one in self._born.values())]) - now
        )

    def close(self) -> None:
        """Mute nobody."""
        self._links.close()
        nft.run(f"add table {TABLE}\ndelete table {TABLE}")

    def _settle(self, indices: set[int]) -> str:
        elements = ", ".join(map(str, sorted(indices)))
        return f"add element {TABLE} settled {{ {elements} }}\n" if elements else ""
