"""The sockets that this process has got or created and not let go yet, and the filters around them.

A socket is known by its cookie, which the kernel never uses twice: neither a descriptor nor an object, which
may be one of several for the same socket. A child after fork() knows none: they are its parent's.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence

from tcpcp.endpoint import isolation, raw_segment
from tcpcp.endpoint.flow_table import RAN_OUT, FlowTable
from tcpcp.endpoint.held import Holding, Shares, some
from tcpcp.endpoint.isolation import Flow
from tcpcp.endpoint.own_lock import OwnLock
from tcpcp.endpoint.waking import Known
from tcpcp.errors import AlreadyGot, Expired, IsolationError, NotGot, TcpcpError
from tcpcp.kernel import tcp_repair

#: From so many on, those that have been held for so long are forgotten.
_MANY, _LONG_S = 10_000, 3600.0

_lock = OwnLock()
_known: dict[int, Holding] = {}
#: Those that a thread is getting or creating at this moment: nobody else may have them, or let them go.
_at_work: dict[int, Holding] = {}
_shares = Shares()
#: By the cookie of the network namespace.
_tables: dict[int, FlowTable] = {}


def table(namespace: int) -> FlowTable:
    """The filter of this process in the calling thread's network namespace.

    :param namespace: its cookie.

    A program may meet thousands of them, one container after another; those where nothing is to be done any more
    are let go.
    """
    with _lock:
        if namespace not in _tables:
            for other in _tables.values():
                other.rest()
            _tables[namespace] = FlowTable()
        return _tables[namespace]


def introducing(namespace: int) -> FlowTable | None:
    """As :func:`table`, for :func:`introduce`; None where there is no socket to be had, as without netfilter."""
    try:
        return table(namespace)
    except IsolationError:
        return None


def claim(socks: Sequence[socket.socket], cookies: Sequence[int] = ()) -> list[Holding]:
    """Keep *socks* from other threads of this process, which get or let go none of them until :func:`enter`.

    :param cookies: theirs, where that is known already, else 0.
    :raises AlreadyGot: one of them is held, or another thread is at it, or it is there twice; nothing has changed.
    """
    known = cookies or [0] * len(socks)
    found = [Holding(one or tcp_repair.get_cookie(sock)) for sock, one in zip(socks, known, strict=True)]
    with _lock:
        _forget_old()
        fresh: dict[int, Holding] = {}
        for sock, one in zip(socks, found, strict=True):
            if one.cookie in _known or one.cookie in _at_work or one.cookie in fresh:
                name = tcp_repair.describe(sock)
                raise AlreadyGot(
                    f"{name}: another thread gets or creates it, or it is there twice"
                    if one.cookie not in _known
                    else f"{name}: got, or created, already; resume or release it first"
                )
            fresh[one.cookie] = one
        _at_work.update(fresh)
    return found


def enter(holdings: Iterable[Holding]) -> None:
    """*holdings*, from :func:`claim`, are got or created: whoever has the sockets may let them go from now on.

    A connection has one socket, so whoever had one of theirs has lost it.
    """
    with _lock:
        for one in holdings:
            _known[one.cookie] = _at_work.pop(one.cookie)
            _opened(other for other in _shares.others(one) if other.cookie in _known)


def _forget_old() -> None:
    """Sockets that were closed instead of released or resumed; nobody tells when."""
    if len(_known) > _MANY:
        over = time.monotonic() - _LONG_S
        for cookie in [cookie for cookie, one in _known.items() if one.times.renewed < over]:
            _shares.lose(_known.pop(cookie))


def find(socks: Iterable[socket.socket]) -> list[Holding]:
    """What is known of *socks*.

    :raises NotGot: nothing of one of them; or one is there twice, and nothing would be known of it the second time.
    """
    found: dict[int, Holding] = {}
    for sock in socks:
        one = _known.get(tcp_repair.get_cookie(sock))
        if one is None:
            name = tcp_repair.describe(sock)
            raise NotGot(
                f"{name}: this process has neither got nor created it, or is at it still, or it runs already"
            )
        if one.cookie in found:
            raise NotGot(f"{tcp_repair.describe(sock)}: is there twice")
        found[one.cookie] = one
    return list(found.values())


@contextlib.contextmanager
def letting_go(socks: Iterable[socket.socket]) -> Iterator[list[Holding]]:
    """What is known of *socks*, none of which another thread lets run or ends meanwhile.

    Of two that do so at once only the first may be told that it has done it: who resumes takes the connection for
    his, and who releases takes it for the destination's.

    :raises NotGot: as :func:`find`; or another thread is quicker. Nothing has changed.
    """
    held = find(socks)
    tables = {id(table_): table_ for one in held for table_ in (one.table, one.created) if table_}
    with _lock:
        for one in held:
            if one.going or _known.get(one.cookie) is not one:
                raise NotGot(f"{one.flow or 'a socket'}: another thread resumes, activates or releases it")
        for one in held:
            one.going = True
    try:  # at once, without anything between that could fail
        yield held
    finally:
        for one in held:
            one.going = False
        for table_ in tables.values():
            table_.rest()


def isolate(holdings: Sequence[Holding], flows_: Sequence[Flow | None], filter_: FlowTable) -> None:
    """Isolate *flows_*, each for its holding; those that are None need not be.

    Also where it fails half-way :func:`undo` is due. Who has one of them already shares it from now on.
    """
    with _lock:
        there = set(filter_.held([flow for flow in flows_ if flow is not None]))
        for one, flow in zip(holdings, flows_, strict=True):
            if flow is not None:
                _shares.take(one, flow, filter_, there=flow in there)
    if known := flows(holdings):
        filter_.hold(known)


def drop(holdings: Iterable[Holding]) -> None:
    """Forget *holdings*: they run, or are gone."""
    with _lock:
        for one in holdings:
            _known.pop(one.cookie, None)
            _at_work.pop(one.cookie, None)
            _shares.lose(one)


def by_table(holdings: Iterable[Holding]) -> list[tuple[FlowTable, list[Holding]]]:
    """Those that are isolated, by the filter that does it."""
    groups: dict[int, tuple[FlowTable, list[Holding]]] = {}
    for one in holdings:
        if one.table is not None and one.flow is not None:
            groups.setdefault(id(one.table), (one.table, []))[1].append(one)
    return list(groups.values())


def flows(holdings: Iterable[Holding]) -> list[Flow]:
    """Their connections."""
    return [one.flow for one in holdings if one.flow is not None]


def renew(holdings: Sequence[Holding]) -> None:
    """Start the timeout of their isolation anew.

    :raises Expired: it has run out for those named; that of the others has been renewed.
    """
    expired: list[str] = []
    for filter_, theirs in by_table(holdings):
        try:
            filter_.renew(flows(theirs))
        except Expired:
            expired += _named(filter_.expired(flows(theirs)))
        else:
            _renewed(theirs)
    if expired:
        raise ran_out(expired)


def _renewed(holdings: Iterable[Holding]) -> None:
    now = time.monotonic()
    for one in holdings:
        one.times.renewed = now


def repeat(namespace: int, alone: Holding | None = None) -> bool:
    """Feed those in *namespace*, the calling thread's, what their peers have said last; or *alone* of them.

    None that is let go, for there may be no socket any more, and the peer would get a reset; nor one whose
    isolation has run out.

    :return: whether there are any. Best effort: what is not heard is not missed now.
    """
    over = time.monotonic() - isolation.TIMEOUT_S
    with _lock:
        theirs = [alone] if alone else [one for one in [*_known.values(), *_at_work.values()] if one.last]
        found = [
            one
            for one in theirs
            if one.known and one.known.namespace == namespace and one.times.renewed > over
        ]
        for one in found:
            with contextlib.suppress(TcpcpError):
                if not one.going and one.known:
                    raw_segment.feed(one.last, one.known.local)
    return bool(found)


def isolated(flows_: Sequence[Flow], namespace: int) -> list[Flow]:
    """Those of *flows_* that are isolated for a socket which this process has got or created, or is at.

    :param namespace: its cookie.
    """
    theirs = table(namespace).held(flows_)
    if not theirs:
        return []
    with _lock:
        all_ = [*_known.values(), *_at_work.values()]
        known = {one.flow for one in all_ if one.table is _tables[namespace]}
    return [flow for flow in theirs if flow in known]


def pass_on(holdings: Sequence[Holding]) -> None:
    """Their sockets are gone, and what arrives stays unanswered for a while; another process may take them up.

    Where that cannot be changed they stay isolated for as long, which is as silent. So do those that another thread
    creates since their sockets are gone: what it has created is not theirs any more.
    """
    with _lock:
        for filter_, theirs in by_table(holdings):
            shared = [one for one in theirs if _shares.others(one)]
            with contextlib.suppress(Expired, IsolationError):
                filter_.pass_on(flows(theirs), kept=flows(shared))
                for one in theirs:
                    _shares.lose(one)


def introduce(holdings: Iterable[Holding], *, new: bool) -> None:
    """Let connection tracking know those that were created, in the network namespace that they were created in.

    :param new: as for :func:`tcpcp.kernel.tracking.introduce`.
    """
    groups: dict[int, tuple[FlowTable, list[Known]]] = {}
    for one in holdings:
        if one.created is not None and one.known is not None:
            groups.setdefault(id(one.created), (one.created, []))[1].append(one.known)
    for filter_, theirs in groups.values():
        filter_.introduce(((one.local, one.peer) for one in theirs), new=new)


def let_through(holdings: Sequence[Holding]) -> None:
    """They are not isolated any more.

    :raises Expired: for those named; nothing has changed for those of the same network namespace.
    """
    with _lock:  # or who shares one would take it for isolated still
        for filter_, theirs in by_table(holdings):
            try:
                filter_.let_through(flows(theirs))
            except Expired:
                raise ran_out(_named(filter_.expired(flows(theirs)))) from None
            _opened(theirs)


def let_all_through(holdings: Sequence[Holding]) -> list[str]:
    """As :func:`let_through`, and those whose isolation has run out are named instead."""
    expired: list[Flow] = []
    with _lock:
        for filter_, theirs in by_table(holdings):
            try:
                filter_.let_through(flows(theirs))
            except Expired:
                over = filter_.expired(flows(theirs))
                filter_.forget(over)
                rest = [flow for flow in flows(theirs) if flow not in over]
                if rest:
                    filter_.let_through(rest)
                expired += over
            _opened(theirs)
    return _named(expired)


def undo(holdings: Sequence[Holding]) -> None:
    """Forget *holdings*, whose isolation was an attempt that failed; what another holding has stays isolated."""
    try:
        with _lock:
            alone = [one for one in holdings if _shares.lose(one) and not one.before]
            for filter_, theirs in by_table(alone):
                filter_.undo(flows(theirs))
    finally:
        drop(holdings)


def ran_out(names: Sequence[str]) -> Expired:
    """The error for the connections *names*."""
    return Expired(f"{some(names)}: {RAN_OUT}")


def _opened(holdings: Iterable[Holding]) -> None:
    for one in holdings:
        _shares.lose(one)
        one.table = one.flow = None


def _named(flows_: Iterable[Flow]) -> list[str]:
    return [str(flow) for flow in flows_]


def _after_fork() -> None:
    global _lock
    _lock = OwnLock()
    for entered in (_known, _at_work, _shares):
        entered.clear()
    for one in _tables.values():
        one.abandon()
    _tables.clear()


@atexit.register
def _at_exit() -> None:
    for one in _tables.values():
        one.close()


os.register_at_fork(after_in_child=_after_fork)
