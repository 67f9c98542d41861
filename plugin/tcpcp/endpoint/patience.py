"""Keeps a connection behind a shut window alive while it is isolated: its own probes would end it.

Where something is to be sent, and nothing is on its way that could be acknowledged, the kernel sends window probes.
They meet our filter, and after tcp_retries2 of them without an answer it takes the peer for dead, whatever the user
timeout is (net/ipv4/tcp_timer.c tcp_probe_timer()). That is 15 minutes; with a tcp_retries2 of 3, as where failures
have to be found soon, 3 seconds. No call stops that timer or sets its count, but every acknowledgement that arrives
begins the count anew (net/ipv4/tcp_input.c tcp_ack()). So the socket is fed the peer's last one, which says nothing
new: when it is isolated, and then by a thread from time to time, which there is only as long as one such connection
is held.

Not one that hears nothing of what is fed (`waking`): bound to an interface, or with an address that is not this
host's; and none without CAP_NET_RAW.
"""

from __future__ import annotations

import os
import socket
import threading
from functools import partial
from pathlib import Path

from tcpcp.endpoint import holding, raw_segment, waking
from tcpcp.endpoint.held import Holding
from tcpcp.endpoint.own_lock import OwnLock
from tcpcp.endpoint.own_thread import OwnThread
from tcpcp.endpoint.reader import left_in
from tcpcp.errors import KernelError
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import Ici

_RETRIES = Path("/proc/sys/net/ipv4/tcp_retries2")
#: Where that cannot be read, as few as there are.
_FEWEST = 0
#: Between two probes, s: the shortest with which the kernel begins (TCP_RTO_MIN), and what TCP_RTO_MAX_MS may limit
#: the longest to.
_FIRST_S, _LONGEST_S = 0.2, 1.0

_lock = OwnLock()
#: The network namespaces with a thread, and what has it look anew: how long it may rest it found out before.
_watched: dict[int, threading.Event] = {}


def is_needed(ici: Ici) -> bool:
    """Whether the socket of *ici*, which has a connection, sends window probes."""
    return ici.snd_una == ici.snd_nxt and left_in(ici).outgoing > 0


def begin(sock: socket.socket, one: Holding, ici: Ici) -> None:
    """Keep *sock* alive, which is isolated and in repair mode, until *one* is let go. In its network namespace.

    :raises KernelError: this host has no room for another thread.
    """
    known = one.known
    if known is None or not waking.hears(sock, known.local, known.namespace):
        return
    one.last = raw_segment.build(
        known.peer,
        known.local,
        seq=ici.rcv_nxt,
        ack=ici.snd_una,
        flags=raw_segment.ACK,
        window=ici.window.told(ici.negotiated.snd_wscale),
    )
    holding.repeat(known.namespace, one)
    with _lock:
        if anew := _watched.get(known.namespace):
            anew.set()
            return
        anew = _watched[known.namespace] = threading.Event()
        try:
            OwnThread("tcpcp keepalive", partial(_run, known.namespace, anew)).start()
        except KernelError as exc:
            del _watched[known.namespace]
            raise KernelError(exc.call, exc.errno, tcp_repair.describe(sock)) from exc


def _run(namespace: int, anew: threading.Event) -> None:
    """A new thread is in the network namespace of the one that starts it."""
    while True:
        anew.wait(interval_s())
        anew.clear()
        with _lock, raw_segment.keeping():
            if not holding.repeat(namespace):
                del _watched[namespace]
                return


def interval_s() -> float:
    """Half of the time that passes, at least, from an acknowledgement until the kernel gives up."""
    try:
        retries = int(_RETRIES.read_text())
    except (OSError, ValueError):
        retries = _FEWEST
    return sum([min(_FIRST_S * 2**n, _LONGEST_S) for n in range(retries + 1)], 0.0) / 2


def _in_child() -> None:
    """The thread, and what it keeps, are the parent's."""
    global _lock
    _lock = OwnLock()
    _watched.clear()


os.register_at_fork(after_in_child=_in_child)
