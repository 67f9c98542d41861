"""A netlink socket to the kernel's packet filter: batches of :mod:`tcpcp.kernel.nft_elements` and their answers.

A table may belong to the socket that made it; so who makes such a table keeps a socket of its own, and reads
all that is answered, instead of closing it when something has gone wrong.

Source: net/netfilter/nfnetlink.c nfnetlink_rcv_batch(): one answer for each message that asks for it, and one
with the number of the beginning when the batch as a whole has failed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Sequence

from tcpcp.errors import IsolationError, TcpcpError, no_net_admin
from tcpcp.kernel import nft_elements, nft_rules
from tcpcp.kernel.kept import Kept

#: NETLINK_NETFILTER.
PROTOCOL = 12
_SOL_NETLINK, _NETLINK_CAP_ACK = 270, 10
_SO_SNDBUFFORCE = 32
_ANSWER_S = 10.0
_DUMP = 0x300
#: More than what may wait in a socket's receive buffer: each takes some hundred bytes of it.
_MOST_LEFT = 10_000
#: What the send buffer of a socket takes as it is.
_USUAL_BYTES = 65536


class Unanswered(IsolationError):
    """The kernel's answer did not arrive: the batch is in force whole, or not at all."""


class Netlink:
    """A netlink socket of one user's own, in the network namespace of the thread that made it.

    :raises PermissionDenied: as its calls: CAP_NET_ADMIN is missing there.
    :raises IsolationError: this kernel has no nf_tables, or could not carry the batch out; :attr:`errno` says
        why, and nothing of it is in force.
    """

    def __init__(self) -> None:
        self._socket = connect()
        self._kept = Kept(self._socket.fileno())
        self._number = 0
        self._unread = False

    def change(self, messages: Sequence[nft_elements.Message]) -> None:
        """Carry out *messages* as one batch.

        :raises Unanswered: they may have been carried out, or not.
        :raises IsolationError: also with EMSGSIZE: they are more than may be sent at once, see :func:`make_room`.
        """
        begin = self._number + 1
        self._number = begin + len(messages) + 1
        batch = nft_elements.batch(messages, begin)
        self._require_ours()
        try:
            with contextlib.suppress(OSError):  # answers are told apart: old ones are in nobody's way
                self._drain()
            if len(batch) > _USUAL_BYTES:
                make_room(self._socket, len(batch))
            self._socket.send(batch)
            error = self._outcome(begin, len(messages))
        except BaseException as exc:
            self._unread = True
            if not isinstance(exc, OSError):
                raise
            if exc.errno == errno.EMSGSIZE:  # of send()
                raise IsolationError(f"{len(messages)} changes at once: {exc.strerror}", exc.errno) from exc
            raise Unanswered(f"nf_tables did not answer: {exc}", exc.errno or 0) from exc
        if error:
            raise _refused(error)

    def _outcome(self, begin: int, count: int) -> int:
        """The first error of the batch that was sent last; all of its answers are read, and older ones skipped."""
        first, left = 0, count
        while left > 0:
            for reply in nft_elements.replies(self._socket.recv(1 << 16)):
                if reply.error is None or not begin <= reply.number <= begin + count + 1:
                    continue
                first = first or reply.error
                if reply.number in (begin, begin + count + 1):  # of the batch as a whole: no other will come
                    left = 0
                left -= 1
        return first

    def tell(self, messages: bytes) -> None:
        """Send *messages*, to whichever part of netfilter, that ask for no answer; what is refused nobody is told.

        :raises OSError: they could not be sent.
        """
        self._require_ours()
        self._unread = True  # what is refused is answered all the same
        self._socket.send(messages)

    def tables(self) -> list[nft_rules.Table]:
        """All tables of the family inet."""
        return [nft_rules.described(body) for body in self._dump(nft_rules.GET_TABLE, b"")]

    def elements(self, table: str, set_: str) -> list[nft_elements.Element]:
        """What is in force in a set of the table inet *table*; nothing also where there is no such set."""
        try:
            found = self._dump(nft_rules.GET_ELEMENTS, nft_elements.of_set(table, set_))
        except IsolationError as exc:
            if exc.errno == errno.ENOENT:
                return []
            raise
        return [one for body in found for one in nft_elements.elements_in(body)]

    def has(self, table: str, set_: str, key: bytes) -> bool:
        """Whether *key* is in force in a set of the table inet *table*; not where there is no such set."""
        body = nft_elements.of_set(table, set_) + nft_elements.element(key)
        try:
            return bool(self._ask(nft_rules.GET_ELEMENTS, 0, body))
        except IsolationError as exc:
            if exc.errno == errno.ENOENT:
                return False
            raise

    def _dump(self, kind: int, body: bytes) -> list[bytes]:
        return self._ask(kind, _DUMP, body)

    def _ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        """What the kernel answers: one message, or of a dump all."""
        self._number += 1
        found: list[bytes] = []
        self._require_ours()
        try:
            self._drain()
            self._socket.send(nft_elements.request(kind, flags, body, number=self._number))
            while True:
                for reply in nft_elements.replies(self._socket.recv(1 << 16)):
                    if reply.number != self._number:
                        continue
                    if reply.error:
                        raise _refused(reply.error)
                    if reply.last or reply.error == 0:
                        return found
                    found.append(reply.body)
                    if not flags & _DUMP:
                        return found
        except BaseException as exc:
            self._unread = True
            if not isinstance(exc, OSError):
                raise
            raise IsolationError(f"nf_tables did not answer: {exc}", exc.errno or 0) from exc

    @property
    def is_ours(self) -> bool:
        """Whether our descriptor is ours still: a daemon may have closed all that it found."""
        return self._kept.is_ours

    def _require_ours(self) -> None:
        if not self.is_ours:
            raise IsolationError("the program has closed the library's descriptor", errno.EBADF)

    def _drain(self) -> None:
        """Read what an exchange that failed has left: a dump that is not at its end lets no other begin.

        And answers that nobody waits for, of which some may be lost.
        """
        if not self._unread:
            return
        self._socket.setblocking(False)
        try:
            for _ in range(_MOST_LEFT):
                if not self._has_more():
                    self._unread = False
                    return
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        finally:
            self._socket.settimeout(_ANSWER_S)

    def _has_more(self) -> bool:
        try:
            self._socket.recv(1 << 16)
        except BlockingIOError:
            return False
        except OSError as exc:
            if exc.errno != errno.ENOBUFS:  # told once
                raise
        return True

    def close(self) -> None:
        """Let go of the socket, and so of the tables that it owns."""
        if self.is_ours:
            self._socket.close()
        else:
            self._socket.detach()


def _refused(error: int) -> TcpcpError:
    if error in (errno.EPERM, errno.EACCES):
        return no_net_admin()
    return IsolationError(f"nf_tables refused: {os.strerror(error)}", error)


def tables() -> list[nft_rules.Table]:
    """All tables of the family inet in the calling thread's network namespace.

    :raises IsolationError, PermissionDenied: the kernel does not say.
    """
    with contextlib.closing(Netlink()) as netlink:
        return netlink.tables()


def keys(table: str, set_: str) -> list[bytes]:
    """What is in force in a set of the table inet *table* of the calling thread's network namespace.

    :raises IsolationError, PermissionDenied: as :func:`tables`.
    """
    with contextlib.closing(Netlink()) as netlink:
        return [one.key for one in netlink.elements(table, set_)]


def make_room(netlink: socket.socket, size_bytes: int) -> None:
    """Let *netlink* send a batch of that size; without CAP_NET_ADMIN in the first user namespace up to a limit."""
    try:
        netlink.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, size_bytes + 65536)
    except PermissionError:
        netlink.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size_bytes + 65536)


def connect() -> socket.socket:
    """A netlink socket to netfilter, in the calling thread's network namespace.

    :raises IsolationError: there is no descriptor left, or no netfilter.
    """
    try:
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, PROTOCOL)
    except OSError as exc:
        raise IsolationError(f"no socket to the packet filter: {exc.strerror}", exc.errno or 0) from exc
    netlink.settimeout(_ANSWER_S)
    try:
        # An error would else bring back the whole message that it is about.
        netlink.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
    except OSError as exc:
        netlink.close()
        raise IsolationError(f"no socket to the packet filter: {exc.strerror}", exc.errno or 0) from exc
    return netlink
