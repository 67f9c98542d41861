"""The flow label of what a socket sends over IPv6: that of a segment which is to be like the others.

Routers may choose one of several paths by it (RFC 6438). Where the application has none of its own the kernel makes
one of a number that it has drawn for the socket. No call tells it, a BPF program does.

Source: include/net/ipv6.h ip6_make_flowlabel(); net/ipv6/ip6_output.c ip6_autoflowlabel().
"""

from __future__ import annotations

import socket
from pathlib import Path

from tcpcp.kernel import fields, tcp_repair
from tcpcp.record.option_names import OPTIONS

_AUTO = OPTIONS["IPV6_AUTOFLOWLABEL"]
_LABEL, _OF_NO_LEASE = 0xFFFFF, 0x80000
#: Values of net.ipv6.auto_flowlabels.
_OFF, _OPT_OUT, _FORCED = 0, 1, 3
_SYSCTLS = Path("/proc/sys/net/ipv6")


def of(sock: socket.socket) -> int:
    """That of *sock*, which is of this thread's network namespace, at this moment: it changes when the path does.

    :return: 0 where there is none, or it cannot be read: it can where BPF is permitted, once
        :func:`tcpcp.kernel.fields.prepare` was called.
    :raises KernelError: the socket does not say whether it has one.
    """
    (numbers,) = fields.numbers([sock])
    if numbers is None:
        return 0
    if numbers.flow_label:
        return socket.ntohl(numbers.flow_label) & _LABEL
    usual = _sysctl("auto_flowlabels", _OPT_OUT)
    chosen = tcp_repair.get_int(sock, _AUTO.level, _AUTO.number, _AUTO.name)
    if usual == _OFF or (usual != _FORCED and not chosen):
        return 0
    return _made_of(numbers.txhash) | _OF_NO_LEASE * _sysctl("flowlabel_state_ranges", 1)


def _made_of(txhash: int) -> int:
    """As the kernel does: its halves change places, and the last 20 bits of its bytes are the label."""
    return socket.ntohl((txhash << 16 | txhash >> 16) & 0xFFFFFFFF) & _LABEL


def _sysctl(name: str, usual: int) -> int:
    """*usual* where /proc is not mounted."""
    try:
        return int((_SYSCTLS / name).read_text())
    except OSError:
        return usual
