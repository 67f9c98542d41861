"""Whether another connection of this host has the same two ends: such a one is not passed.

There may be one where each has an interface of its own: link-local addresses, VRFs. A filter tells connections
apart by their ends, so with one its twin would be isolated, and cut off for a minute when that one is released.

Source: net/ipv4/inet_hashtables.c inet_match().
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tcpcp.endpoint import holding
from tcpcp.endpoint.isolation import Flow
from tcpcp.errors import Unsupported
from tcpcp.kernel import diag
from tcpcp.kernel.nft_elements import flow_key
from tcpcp.record.addresses import plain
from tcpcp.record.ici import State

#: Of those that run.
_STATES = sum(1 << state for state in State if state not in (State.CLOSE, State.LISTEN, State.TIME_WAIT))


def require_none(flows: Sequence[Flow], bound: Iterable[Flow], namespace: int) -> None:
    """Make sure that whatever is done to *flows* is done to no other connection of this process, or host.

    :param bound: those of them whose socket is bound to an interface. For these the kernel's table is looked
        through, 5 us for each connection of the host; one whose twin alone is bound is not found out.
    :param namespace: the cookie of the thread's network namespace.
    :raises Unsupported: one has a twin. :raises KernelError: the kernel does not tell.
    """
    if len(set(flows)) < len(flows):
        raise _refused(Counter(flows).most_common(1)[0][0])
    # One that is isolated here already is a twin's, or was of a socket that has been closed since.
    if asked := [*bound, *holding.isolated(flows, namespace)]:
        there = Counter(_key(one) for one in diag.tcp(states=_STATES))
        for flow in asked:
            if there[flow.key] > 1:
                raise _refused(flow)


def with_socket(flows: Sequence[Flow]) -> list[Flow]:
    """Those of *flows* of which this host has a socket.

    :raises KernelError: the kernel does not tell.
    """
    there = {_key(one) for one in diag.tcp(states=_STATES)}
    return [flow for flow in flows if flow.key in there]


def _key(one: diag.Entry) -> bytes:
    """As :attr:`tcpcp.endpoint.isolation.Flow.key`."""
    return flow_key(plain(one.local_ip), one.local_port, plain(one.peer_ip), one.peer_port)


def _refused(flow: Flow) -> Unsupported:
    return Unsupported(
        f"{flow}: another connection of this host has the same two ends, by another interface, and a filter does"
        " not tell them apart; try again when that one has ended"
    )
