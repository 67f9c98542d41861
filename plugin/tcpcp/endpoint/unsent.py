"""What a socket has not sent yet stays unsent while its send queue is read.

While the send queue is selected in repair mode, whatever makes the kernel send makes it count all that waits as
sent, and sends nothing (net/ipv4/tcp_output.c tcp_write_xmit() "repair"). The ICI would say so too, or the socket
that goes on would take for lost what nobody has sent, and wait for its timer. What makes it send although nothing
arrives: the timer of pacing (BBR, SO_MAX_PACING_RATE), and the device that is done with an earlier segment
(tcp_tsq_handler()). Both happen once more and not again where the send window is shut: nothing is sent then that
could be paced, or done with. So the window is shut, and they are waited for, before any queue is selected.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from tcpcp.kernel import tcp_repair
from tcpcp.kernel.fields import Numbers
from tcpcp.record.ici import Window

#: How long a device may take for what it has got, and the most that is waited for a paced segment, s. One that
#: leaves later does not leave while queues are read, but where nobody knows when it may.
PATIENCE_S = 0.05
#: sk_gso_max_size of all devices but BIG TCP's, bytes; net.ipv4.tcp_tso_rtt_log's default.
_LARGEST, _RTT_LOG = 1 << 16, 9
_LOOK_S = 0.0001
#: include/uapi/asm-generic/socket.h; include/uapi/linux/sock_diag.h SK_MEMINFO_WMEM_ALLOC, the third number.
_SO_MAX_PACING_RATE, _SO_MEMINFO = 47, 55
_MEMORY = struct.Struct("=3I")
_UNPACED = b"\xff" * 8


@contextlib.contextmanager
def kept(socks: Sequence[socket.socket], numbers: Sequence[Numbers | None]) -> Iterator[list[Window | None]]:
    """Around the reading of *socks*, which are isolated and in repair mode with no queue selected.

    :param numbers: of each, if they are known.
    :return: of each its windows, which are as before after the block; None where it may be asked for them.
    :raises KernelError: of one of them; all are as before.
    """
    windows: list[Window | None] = [None] * len(socks)
    shut = []
    with contextlib.ExitStack() as undo:
        for i, (sock, one) in enumerate(zip(socks, numbers, strict=True)):
            if (one is None or one.write_seq != one.snd_una) and tcp_repair.get_outq_nsd(sock):
                window = windows[i] = tcp_repair.get_window(sock)
                undo.callback(tcp_repair.set_window, sock, window)
                tcp_repair.set_window(sock, replace(window, snd_wnd=0))
                shut.append((sock, one))
        if shut:
            _wait(shut)
        yield windows


def _wait(shut: Sequence[tuple[socket.socket, Numbers | None]]) -> None:
    """Until nothing that was sent may have the rest of *shut* sent."""
    began = time.monotonic()
    time.sleep(max(_paced_s(sock, one) for sock, one in shut))
    for sock, _ in shut:
        while _on_its_way(sock) and time.monotonic() < began + PATIENCE_S:
            time.sleep(_LOOK_S)


def _paced_s(sock: socket.socket, numbers: Numbers | None) -> float:
    """How long to wait for the time of *sock*'s next segment, :data:`PATIENCE_S` at most."""
    if numbers:
        left_s = max(numbers.wstamp_ns - numbers.clock_ns, 0) / 1e9
        return left_s if left_s <= PATIENCE_S else 0.0
    limit = tcp_repair.get_bytes(sock, socket.SOL_SOCKET, _SO_MAX_PACING_RATE, 8, "SO_MAX_PACING_RATE")
    paced = limit != _UNPACED[: len(limit)] or tcp_repair.get_congestion(sock).startswith("bbr")
    return min(longest_pause_s(*tcp_repair.get_pacing(sock)), PATIENCE_S) if paced else 0.0


def longest_pause_s(rate_bytes_s: int, min_rtt_us: int) -> float:
    """How long a segment waits at most for the one before it, which is paced, s.

    That one is made for a millisecond's worth, and the larger the nearer the peer is
    (net/ipv4/tcp_output.c tcp_tso_autosize(), tcp_update_skb_after_send()).
    """
    size_bytes = (rate_bytes_s >> 10) + (_LARGEST >> (min_rtt_us >> _RTT_LOG))
    return min(size_bytes, _LARGEST) / max(rate_bytes_s, 1)


def _on_its_way(sock: socket.socket) -> int:
    """Bytes of memory of segments that a device has still got."""
    found = tcp_repair.get_bytes(sock, socket.SOL_SOCKET, _SO_MEMINFO, _MEMORY.size, "SO_MEMINFO")
    return int(_MEMORY.unpack(found)[2])
