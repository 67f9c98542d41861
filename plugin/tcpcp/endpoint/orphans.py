"""Connections that nobody has any more, because who had them was killed while a filter held them.

The kernel ends such a one as if it had been closed: it sends a FIN, which the filter keeps away, again and again
for minutes. When the filter goes, the peer gets it, though the connection lives on elsewhere. And as long as it is
there no other socket can be made of that connection. So it is forgotten before: of that the kernel tells the peer
by a reset, which the filter keeps away too (net/ipv4/tcp.c tcp_abort()).
"""

from __future__ import annotations

from tcpcp.endpoint import isolation
from tcpcp.errors import KernelError
from tcpcp.kernel import diag
from tcpcp.record import addresses
from tcpcp.record.ici import Endpoint, State

_ENDING = (State.FIN_WAIT1, State.FIN_WAIT2, State.CLOSING, State.LAST_ACK)


def forget(name: str) -> int:
    """Have the kernel forget those at the ends that the filter *name* holds, which stands; how many there were.

    :raises KernelError: EOPNOTSUPP: it cannot. :raises IsolationError: the filter cannot be read.
    """
    ends = isolation.held_at(name)
    states = sum(1 << state for state in _ENDING)
    found = [
        one
        for one in (diag.tcp(states=states) if ends else ())
        if not one.inode and Endpoint(addresses.address(one.local_ip), one.local_port) in ends
    ]
    for one in found:
        try:
            diag.destroy(one)
        except KernelError as exc:
            if exc.errno not in diag.NOT_IN_TABLE:
                raise
    return len(found)
