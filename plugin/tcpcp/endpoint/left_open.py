"""What another program of this host isolates still, though it has closed the socket: `create` takes it over.

Nobody tells that program, and nobody else may change its filter. But the filter itself forgets a connection when a
datagram says so that has our mark, which takes CAP_NET_ADMIN, the number of the filter that is to keep the
connection, and the connection's key (`flow_rules`). This host sends it to itself. It need not arrive: every filter
of ours sees it as it leaves, before those of others, which may drop it. It is sent when the new socket has its two
ends: then no other has them, whoever was about to make one.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

from tcpcp.endpoint import flow_rules
from tcpcp.endpoint.flow_table import FlowTable
from tcpcp.endpoint.isolation import MARK, Flow
from tcpcp.endpoint.twins import with_socket
from tcpcp.errors import AddressInUse, IsolationError
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import Endpoint

_LOOPBACK = "127.0.0.1"


def find(table: FlowTable, flows: Sequence[Flow]) -> list[Flow]:
    """Those of *flows* that another program isolates, and has no socket for.

    :raises AddressInUse: it has one. :raises KernelError: the kernel does not tell.
    """
    taken = table.held_elsewhere(flows)
    if taken and (live := with_socket(taken)):
        raise AddressInUse(f"{live[0]}: another program on this host has got, or created, this connection")
    return taken


def take_over(table: FlowTable, left: Sequence[Flow]) -> None:
    """Have no other filter isolate *left*, whose new sockets are made, and isolated by *table*.

    :raises IsolationError: another does still. :raises KernelError: there is no descriptor left.
    """
    for flow in left:
        _tell(flow_rules.forgetting(table.number, flow), flow.local)
    if still := table.held_elsewhere(left):
        raise IsolationError(
            f"{still[0]}: another program on this host has closed this connection's socket, and its filter "
            f"isolates it still: what was to tell it did not leave; let pass, out, what has the mark {MARK:#x}, "
            "before all else (nft list ruleset: a chain with the hook output and a priority of -300 or less), or "
            "wait a minute"
        )


def _tell(data: bytes, local: Endpoint) -> None:
    """Send *data* to this host itself; to *local* where the loopback interface is down.

    Whether that has worked the filters know: one of another's behind ours refuses what ours have seen.
    """
    if not _sent(data, socket.AF_INET, _LOOPBACK):
        _sent(data, socket.AF_INET6 if local.ip.version == 6 else socket.AF_INET, str(local.ip))


def _sent(data: bytes, family: int, ip: str) -> bool:
    """Whether *ip* is an address of this host. To be bound to it, and its own addressee, takes no other port."""
    with tcp_repair.opened(family, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        sock.bind((ip, 0))
        with contextlib.suppress(OSError):
            sock.sendto(data, sock.getsockname())
        return True
    return False
