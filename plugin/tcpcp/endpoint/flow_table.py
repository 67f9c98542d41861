"""The filter of this process around the connections that it passes: one table for a network namespace.

Elements have their own timeouts, so that what is over costs nothing: a connection that was passed on stays
unanswered for a minute and is then forgotten by the kernel itself, whatever has become of this process.

What it consists of is in `flow_rules`.

The table belongs to our netlink socket (flag ``owner``), so that no other program can change it; ``nft flush
ruleset``, which every reload of a firewall begins with, leaves it alone. With the flag ``persist`` (Linux 6.9)
it outlives us, and then anybody may delete it; where the kernel does not know that flag, the table is nobody's.

For the hooks, the mark and what is not tracked, see :mod:`tcpcp.endpoint.isolation`.

Source: net/netfilter/nf_tables_api.c nft_table_owner(), nft_rcv_nl_event(), nft_add_set_elem().
"""

from __future__ import annotations

import contextlib
import errno
import secrets
from collections.abc import Iterable, Sequence

from tcpcp.endpoint import flow_rules, isolation, new_connections
from tcpcp.endpoint.elements import Elements
from tcpcp.endpoint.flow_rules import FlowRules, Optional
from tcpcp.endpoint.in_parts import in_parts, in_parts_after
from tcpcp.endpoint.isolation import Flow, flow_sets
from tcpcp.endpoint.own_lock import OwnLock
from tcpcp.errors import Expired, IsolationError, PermissionDenied
from tcpcp.kernel import netfilter, nft_rules, owned_table, tracking
from tcpcp.kernel.nft_elements import Message, changes
from tcpcp.record.ici import Endpoint

#: Of a table's name; 16 hexadecimal digits follow, chosen at random.
PREFIX = isolation.OWN_PREFIX
#: What is said of a connection whose element of the table is not there any more.
RAN_OUT = "the isolation has run out, or was removed by somebody"
#: So many are asked for one by one.
_FEW = 4
_UNTRACKED, _HAS_SOCKET = nft_rules.not_tracked(), nft_rules.has_socket()


class FlowTable:
    """The table, in the network namespace of the calling thread; it is made when it is needed first.

    :ivar number: for :mod:`tcpcp.endpoint.left_open`.

    Every change is one batch: it is in force whole or not at all. It is several only where a program that is not
    root of the first user namespace has more connections than one may have (`in_parts`). All methods raise
    :class:`tcpcp.errors.IsolationError` or :class:`tcpcp.errors.PermissionDenied`, and may be called from any
    thread.
    """

    def __init__(self) -> None:
        self.name = f"{PREFIX}{secrets.token_hex(8)}"
        self.number = int(self.name[-8:], 16)
        self._rules = FlowRules(self.name, self.number)
        self._netlink = netfilter.Netlink()
        self._lock = OwnLock()
        self._made = self._has_back = self._pinned = False
        self._held, self._passed, self._back = Elements(), Elements(), Elements()

    def _reconnect(self) -> None:
        """Where the program has closed our descriptor the table is nobody's, and can be changed all the same.

        Where we have closed it there is none.
        """
        if not self._netlink.is_ours:
            self._netlink.close()
            self._netlink = netfilter.Netlink()

    def prepare(self) -> None:
        """Make the table now and keep it until :meth:`close`, so that :meth:`hold` is quick."""
        with self._lock:
            self._pinned = True
            if not self._made:
                self._make([])
                tracking.load(self._netlink)

    @in_parts
    def hold(self, flows: Sequence[Flow]) -> None:
        """Isolate *flows*, for :data:`tcpcp.endpoint.isolation.TIMEOUT_S` from now on.

        Once this returns, at most one packet for each processor is still being delivered.
        """
        with self._lock:
            try:
                self._hold(self._rules.added("flows", flows))
            except IsolationError as exc:
                raise IsolationError(f"{_names(flows)}: {exc}", exc.errno) from exc
            self._held.note(flows)

    def _hold(self, added: list[Message]) -> None:
        if not self._made:
            self._make(added)
            return
        try:
            self._run(added, again=added)
        except IsolationError as exc:
            if exc.errno != errno.ENOENT:
                raise
            self._make(added)  # somebody deleted it, which only older kernels permit

    def held(self, flows: Iterable[Flow]) -> list[Flow]:
        """Those of *flows* that were isolated here and have not been let go."""
        with self._lock:
            return self._held.there(flows)

    def held_elsewhere(self, flows: Sequence[Flow]) -> list[Flow]:
        """Those of *flows* that another program isolates, which lives; what the dead isolated is ours now."""
        with self._lock:
            return self._elsewhere("flows", flows)

    def _elsewhere(self, kind: str, flows: Sequence[Flow]) -> list[Flow]:
        """Those of *flows* that are in the sets of that *kind* of another program."""
        wanted = {name: keys for name, keys in flow_sets(kind, flows).items() if keys}
        found = {
            key
            for table in self._others()
            for name, keys in wanted.items()
            for key in self._there(table, name, keys)
        }
        return [flow for flow in flows if flow.key in found] if found else []

    def _there(self, table: str, name: str, keys: Sequence[bytes]) -> Iterable[bytes]:
        """What is in a set of another program's, which may hold thousands: of few, *keys* and no others."""
        if len(keys) > _FEW:
            return [one.key for one in self._netlink.elements(table, name)]
        return [key for key in keys if self._netlink.has(table, name, key)]

    def _others(self) -> list[str]:
        """Names of the tables of other programs. What programs that have ended have left becomes ours."""
        self._reconnect()
        others = [one for one in _ours(self._netlink) if one.name != self.name]
        if any(one.orphaned for one in others):
            if not self._made:
                self._make([])
            else:
                self._adopt()
            others = [one for one in _ours(self._netlink) if one.name != self.name]
        return [one.name for one in others]

    @in_parts
    def renew(self, flows: Sequence[Flow]) -> None:
        """Start the timeout of *flows* anew.

        :raises Expired: some of them are not isolated any more; no other has changed.
        """
        with self._lock:
            self._change_held(flows, self._rules.added("flows", flows))
            self._held.note(flows)

    def pass_on(self, flows: Sequence[Flow], *, kept: Sequence[Flow] = ()) -> None:
        """*flows* have lost their sockets: what arrives for them stays unanswered for a timeout.

        :param kept: those of them that are isolated all the same, for other sockets that are being made.
        :raises Expired: some of them are not isolated any more; nothing has changed.
        """
        keys = {flow.key for flow in kept}

        @in_parts_after(FlowTable.renew)
        def pass_on(table: FlowTable, flows: Sequence[Flow]) -> None:
            table._pass_on(flows, [flow for flow in flows if flow.key in keys])

        pass_on(self, flows)

    def _pass_on(self, flows: Sequence[Flow], kept: Sequence[Flow]) -> None:
        with self._lock:
            fresh = [
                *self._rules.erased("passed", self._passed.among(flows)),
                *self._rules.added("passed", flows),
            ]
            gone = self._rules.erased("back", self._back.among(flows))
            # What another process let through outweighs what is passed on here, but not what is isolated.
            marked = self._rules.added("flows", [*self._elsewhere("back", flows), *kept])
            self._change_held(flows, [*fresh, *gone, *marked])
            self._passed.note(flows)
            self._held.drop(flows)
            self._held.note(kept)
            self._back.drop(flows)

    @in_parts_after(renew)
    def let_through(self, flows: Sequence[Flow]) -> None:
        """*flows* run here from now on, whoever has passed them on before.

        The table stays until :meth:`rest`: what is fed to wake them is not tracked as long as it is there.

        :raises Expired: some of them were not isolated any more; nothing has changed.
        """
        with self._lock:
            others = self._others()
            more = self._rules.erased("passed", self._passed.among(flows))
            if others:
                more += [*self._back_chain(), *self._rules.erased("back", self._back.among(flows))]
                more += self._rules.added("back", flows)
            self._change_held(flows, more)
            if others:
                self._has_back = True
                self._back.note(flows)
            self._held.drop(flows)
            self._passed.drop(flows)

    def introduce(self, ends: Iterable[tuple[Endpoint, Endpoint]], *, new: bool) -> None:
        """Let this host's connection tracking know connections, as :func:`tcpcp.kernel.tracking.introduce`."""
        with self._lock, contextlib.suppress(IsolationError):
            self._reconnect()
            tracking.introduce(self._netlink, ends, new=new)

    @in_parts
    def undo(self, flows: Sequence[Flow]) -> None:
        """Take :meth:`hold` of *flows*, which may have failed, back; what was passed on before is so again."""
        with self._lock:
            self._held.drop(flows)
            if self._made:
                erased = self._rules.erased("flows", flows)
                self._run(erased, again=erased)
                self._tidy()

    def expired(self, flows: Iterable[Flow]) -> list[Flow]:
        """Those of *flows* that are not isolated any more; the timeout of the others starts anew."""
        found = []
        for flow in flows:
            try:
                self.renew([flow])
            except Expired:
                found.append(flow)
        return found

    def forget(self, flows: Iterable[Flow]) -> None:
        """*flows*, which have expired, are not held any more."""
        with self._lock:
            self._held.drop(flows)

    def rest(self) -> None:
        """Remove the table, and let go of its network namespace, if nothing depends on it any more."""
        with self._lock:
            self._tidy()

    def close(self) -> None:
        """Remove the table if nothing depends on it any more; else it is left to the kernel's timeouts."""
        with self._lock:
            self._pinned = False
            self._tidy()
            self._netlink.close()

    def abandon(self) -> None:
        """In a child after fork(): the table is the parent's."""
        self._netlink.close()

    def _make(self, added: list[Message]) -> None:
        self._reconnect()
        optional = Optional(_UNTRACKED, _HAS_SOCKET)
        try:
            self._make_with(optional, added)
        except IsolationError as exc:
            if exc.errno != errno.ENOENT:
                raise
            self._make_without(optional, added)
        self._made, self._has_back = True, False
        self._adopt()

    def _make_without(self, optional: Optional, added: list[Message]) -> None:
        """On a kernel that has not all of *optional*."""
        for fewer in (optional._replace(has_socket=[]), optional._replace(untracked=[])):
            with contextlib.suppress(IsolationError):
                self._make_with(fewer, added)
                return
        self._make_with(Optional([], []), added)

    def _make_with(self, optional: Optional, added: list[Message]) -> None:
        owned_table.make(
            self._netlink, self.name, lambda flags: [*self._rules.table(flags, optional), *added]
        )

    def _adopt(self) -> None:
        """Take over what is still in force of programs that have ended, so that one table does for all of them."""
        for table in _ours(self._netlink):
            if not table.orphaned or table.name == self.name:
                continue
            taken = [
                *self._taken(table.name, "flows", self._held),
                *self._taken(table.name, "passed", self._passed),
            ]
            # Who took a connection over may have ended, and its child go on with it.
            if back := self._taken(table.name, "back", self._back):
                taken += [*self._back_chain(), *back]
            with contextlib.suppress(IsolationError):  # somebody else was faster
                self._netlink.change([*taken, nft_rules.deletion(table.name)])
                self._has_back = self._has_back or bool(back)
        new_connections.sweep(self._netlink)

    def _taken(self, table: str, kind: str, known: Elements) -> list[Message]:
        messages = []
        for name in flow_rules.sets(kind):
            for key, left_ms in self._netlink.elements(table, name):
                left_s = left_ms // 1000 + 1
                messages += changes("add", self.name, {name: [key]}, left_s)
                known.note_key(key, left_s)
        return messages

    def _run(self, messages: list[Message], again: list[Message]) -> None:
        """Carry *messages* out.

        :param again: the same for when they may have been carried out already.
        """
        if not messages:
            return
        self._reconnect()
        try:
            self._netlink.change(messages)
        except netfilter.Unanswered:
            self._netlink.change(again)

    def _change_held(self, flows: Sequence[Flow], more: list[Message]) -> None:
        """Take *flows*, all of which are there, out of the set of those that are isolated, and do *more*."""
        try:
            self._run(
                [*self._rules.deleted("flows", flows), *more],
                again=[*self._rules.erased("flows", flows), *more],
            )
        except IsolationError as exc:
            if exc.errno != errno.ENOENT:
                raise IsolationError(f"{_names(flows)}: {exc}", exc.errno) from exc
            raise Expired(f"{_names(flows)}: {RAN_OUT}") from None

    def _back_chain(self) -> list[Message]:
        return [] if self._has_back else self._rules.back()

    def _tidy(self) -> None:
        """Remove the table if it holds nothing: every packet of the host passes it.

        And let go of the network namespace, which would live as long as our socket in it.
        """
        if self._pinned or (self._made and not self._removed()):
            return
        self._made = False
        self._netlink.close()

    def _removed(self) -> bool:
        if any(known.remain() for known in (self._held, self._passed, self._back)):
            return False
        try:
            self._netlink.change([nft_rules.deletion(self.name)])
        except (IsolationError, PermissionDenied) as exc:
            # It is in nobody's way but the packets'; the next time will do.
            return isinstance(exc, IsolationError) and exc.errno == errno.ENOENT
        return True


def _ours(netlink: netfilter.Netlink) -> list[nft_rules.Table]:
    """Those of this kind."""
    return [
        one
        for one in netlink.tables()
        if one.name.startswith(PREFIX) and not one.name.startswith(new_connections.PREFIX)
    ]


def sweep() -> list[str]:
    """Delete what programs that have ended left in this network namespace, once nothing of it is in force.

    Who makes a table does so by itself; this is for hosts where nobody will.

    :return: the names of the tables that were deleted.
    :raises PermissionDenied, IsolationError: the kernel does not tell.
    """
    sets = flow_rules.sets("flows", "passed", "back")
    with contextlib.closing(netfilter.Netlink()) as netlink:
        return [*owned_table.sweep(netlink, _ours(netlink), sets), *new_connections.sweep(netlink)]


def _names(flows: Sequence[Flow]) -> str:
    more = f" and {len(flows) - 1} more" if len(flows) > 1 else ""
    return f"{flows[0]}{more}"
