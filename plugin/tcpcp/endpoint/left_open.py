"""What another program of this host isolates still, though it has closed the socket: `create` takes it over.

Nobody tells that program, and nobody else may change its filter. But the filter itself forgets a connection when a
segment says so that no peer sends: it is fed (:mod:`tcpcp.endpoint.raw_segment`), has the flags FIN, SYN and RST,
and as its acknowledgement number that of the filter which is to keep the connection. It is sent when the new socket
has its two ends: then no other has them, whoever was about to make one. That socket discards it, for its sequence
number is far from the window (net/ipv4/tcp_input.c tcp_validate_incoming()), and no socket answers a reset.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from tcpcp.endpoint import flow_rules, raw_segment
from tcpcp.endpoint.flow_table import FlowTable
from tcpcp.endpoint.isolation import Flow
from tcpcp.endpoint.twins import with_socket
from tcpcp.errors import AddressInUse, TcpcpError
from tcpcp.record import seq
from tcpcp.record.ici import Ici

_FAR = 1 << 31
#: A soft interrupt may have to wait for a processor.
_PATIENCE_S, _PAUSE_S = 1.0, 0.001


def find(table: FlowTable, flows: Sequence[Flow]) -> list[Flow]:
    """Those of *flows* that another program isolates, and has no socket for.

    :raises AddressInUse: it has one. :raises KernelError: the kernel does not tell.
    """
    taken = table.held_elsewhere(flows)
    if taken and (live := with_socket(taken)):
        raise _refused(live[0])
    return taken


def take_over(table: FlowTable, flows: Sequence[Flow], icis: Sequence[Ici], left: Sequence[Flow]) -> None:
    """Have no other filter isolate *left*, some of *flows*, whose sockets are made from *icis*, and isolated.

    :raises AddressInUse: another does still; what is needed, as CAP_NET_RAW, is missing.
    """
    with contextlib.suppress(TcpcpError):
        for flow, ici in zip(flows, icis, strict=True):
            if flow in left:
                _tell(table, flow, ici)
    over = time.monotonic() + _PATIENCE_S
    while still := table.held_elsewhere(left):
        if time.monotonic() > over:
            raise _refused(still[0])
        time.sleep(_PAUSE_S)


def _tell(table: FlowTable, flow: Flow, ici: Ici) -> None:
    segment = raw_segment.build(
        flow.peer,
        flow.local,
        seq=seq.add(ici.rcv_nxt, _FAR),
        ack=table.number,
        flags=flow_rules.FORGET,
        window=0,
    )
    raw_segment.feed(segment, flow.local, ici.device if flow.local.is_link_local else "")


def _refused(flow: Flow) -> AddressInUse:
    return AddressInUse(f"{flow}: another program on this host has got, or created, this connection")
