"""Keeps new connections away from a listener: the first SYN of each is dropped, and nothing else.

One table ``inet tcpcp_new_XXXXXXXXXXXXXXXX`` for each :class:`NewConnections`: an
:mod:`tcpcp.kernel.owned_table`, as those of :mod:`tcpcp.endpoint.flow_table` are.

Sets, made as they are needed: ``syn4``, ``syn6`` of addresses with ports, ``any4``, ``any6`` of ports alone.

Source: net/netfilter/nf_tables_api.c nft_add_set_elem(); RFC 9293 section 3.1 for the flags.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import struct
import weakref
from collections.abc import Iterable, Mapping, Sequence

from tcpcp.endpoint import isolation
from tcpcp.endpoint.own_lock import OwnLock
from tcpcp.endpoint.uninterrupted import Uninterrupted
from tcpcp.errors import Expired, IsolationError
from tcpcp.kernel import netfilter, nft_rules, owned_table
from tcpcp.kernel.nft_elements import Message, changes
from tcpcp.record.ici import Endpoint

#: Of a table's name; 16 hexadecimal digits follow, chosen at random.
PREFIX = f"{isolation.OWN_PREFIX}new_"
#: What there may be in a table.
SETS = ("syn4", "syn6", "any4", "any6")
_FIRST = -300
_FIN_SYN_RST_ACK, _SYN = 0x17, 0x02


class NewConnections:
    """A filter in force that keeps new connections away; made by :func:`tcpcp.hold_new`.

    It is in force for :data:`tcpcp.endpoint.isolation.TIMEOUT_S`, also where this process ends, unless
    :meth:`refresh` starts that anew. In a child after fork() it is the parent's, and every call raises
    IsolationError.

    :param listeners: where listening sockets are bound; 0.0.0.0 and :: stand for every address of that family.
    :raises IsolationError, PermissionDenied: nothing has changed.
    """

    def __init__(self, listeners: Iterable[Endpoint]) -> None:
        self._name = f"{PREFIX}{secrets.token_hex(8)}"
        self._sets = _keys(listeners)
        self._lock = OwnLock()
        self._released = False
        self._netlink = netfilter.Netlink()
        try:
            sweep(self._netlink)
            self._make()
        except BaseException:
            self._netlink.close()
            raise
        _all.add(self)

    def _make(self) -> None:
        def messages(flags: int) -> list[Message]:
            return [*_table(self._name, flags, self._sets), *self._added()]

        owned_table.make(self._netlink, self._name, messages)

    def refresh(self) -> None:
        """Start the timeout anew.

        :raises Expired: it was not in force any more, so that new connections may have come; it is again.
        :raises IsolationError: nothing has changed; or it was released before.
        """
        with Uninterrupted(), self._lock:
            self._require()
            if not self._change([*self._deleted(), *self._added()]):
                self._restore()
                raise Expired(f"new connections to {self}: {_NOT_IN_FORCE}; they are held again")

    def _restore(self) -> None:
        try:
            self._netlink.change(self._added())
        except IsolationError as exc:
            if exc.errno != errno.ENOENT:
                raise
            self._make()  # somebody deleted it, which only older kernels permit

    def release(self) -> None:
        """Let new connections through. Does nothing the second time.

        :raises Expired: they were let through before: it was not in force any more. Nothing is left of it.
        :raises IsolationError: it is as it was.
        """
        with Uninterrupted(), self._lock:
            if self._released:
                return
            self._require()
            in_force = self._change([*self._deleted(), nft_rules.deletion(self._name)])
            if not in_force:
                with contextlib.suppress(IsolationError):  # there may be no table any more
                    self._netlink.change([nft_rules.deletion(self._name)])
            self._released = True
            self._netlink.close()
        if not in_force:
            raise Expired(f"new connections to {self}: {_NOT_IN_FORCE}")

    def _change(self, messages: list[Message]) -> bool:
        """Carry *messages* out; whether what they delete was there, else nothing has changed."""
        try:
            self._netlink.change(messages)
        except IsolationError as exc:
            if exc.errno != errno.ENOENT:
                raise
            return False
        return True

    def _require(self) -> None:
        if self._released or self._name in _parents:
            raise IsolationError(f"new connections to {self} are not held by this process (any more)")
        # Closed by the program: the table is nobody's, and can be changed all the same.
        if not self._netlink.is_ours:
            self._netlink.close()
            self._netlink = netfilter.Netlink()

    def _added(self) -> list[Message]:
        return changes("add", self._name, self._sets, isolation.TIMEOUT_S)

    def _deleted(self) -> list[Message]:
        """Fails where one of them is not in force."""
        return changes("delete", self._name, self._sets)

    def abandon(self) -> None:
        """In a child after fork(): it is the parent's."""
        self._lock = OwnLock()
        _parents.add(self._name)
        self._netlink.close()

    def __str__(self) -> str:
        ports = {key[-4:-2] if len(key) > 4 else key for keys in self._sets.values() for key in keys}
        return f"port {', '.join(str(int.from_bytes(port, 'big')) for port in sorted(ports))}"


_NOT_IN_FORCE = "the filter has run out, or was removed by somebody"
_all: weakref.WeakSet[NewConnections] = weakref.WeakSet()
#: Names of tables that are another process's.
_parents: set[str] = set()


def _after_fork() -> None:
    for one in list(_all):
        one.abandon()


os.register_at_fork(after_in_child=_after_fork)


def sweep(netlink: netfilter.Netlink) -> list[str]:
    """Delete what programs that have ended left, once nothing of it is in force.

    :return: the names of the tables.
    """
    tables = [one for one in netlink.tables() if one.name.startswith(PREFIX)]
    return owned_table.sweep(netlink, tables, SETS)


def _keys(listeners: Iterable[Endpoint]) -> dict[str, list[bytes]]:
    sets: dict[str, list[bytes]] = {}
    for local in listeners:
        port, version = struct.pack("!H", local.port), local.ip.version
        if local.ip.is_unspecified:
            sets.setdefault(f"any{version}", []).append(port)
        else:
            sets.setdefault(f"syn{version}", []).append(local.ip.packed + port + b"\0\0")
    return sets


def _table(name: str, flags: int, sets: Mapping[str, Sequence[bytes]]) -> list[Message]:
    messages = [nft_rules.table(name, flags)]
    for number, set_ in enumerate(sets, 1):
        messages.append(nft_rules.place_set(name, set_, number, _address_bytes(set_)))
    messages.append(nft_rules.chain(name, "input", nft_rules.LOCAL_IN, _FIRST))
    for set_ in sets:
        messages.append(
            nft_rules.rule(
                name,
                "input",
                nft_rules.is_equal(nft_rules.L4PROTO, b"\x06"),
                nft_rules.has_tcp_flags(_SYN, _FIN_SYN_RST_ACK),
                nft_rules.is_for(set_, 4 if set_.endswith("4") else 16, any_address=set_.startswith("any")),
                nft_rules.verdict(nft_rules.DROP),
            )
        )
    return messages


def _address_bytes(set_: str) -> int:
    if set_.startswith("any"):
        return 0
    return 4 if set_.endswith("4") else 16
