"""How far the window that is told may open (``rcv_ssthresh``): no call sets it, it follows from what others set.

TCP_WINDOW_CLAMP, where it is raised, raises it to the smaller of the clamp and ``rcv_wnd`` (net/ipv4/tcp.c
tcp_set_window_clamp(); before Linux 6.7 sets it to that). But ``rcv_wnd`` may be small for the moment, because much
waits to be read: that is no measure of what may be told when it has been read. And a window that never has room for
one of the peer's segments stays so: the peer sends by its timer only, less than what would let the window grow
(tcp_input.c tcp_grow_window()). So it opens at least to what the kernel itself leaves to one whose buffer is
overdrawn, the smaller of the clamp and two segments (tcp_clamp_window()).
"""

from __future__ import annotations

from tcpcp.kernel import tcp_repair
from tcpcp.kernel.tcp_repair import TCP
from tcpcp.record import seq
from tcpcp.record.ici import Ici

_TCP_WINDOW_CLAMP = 10
_LEAST_SEGMENTS = 2

_Settings = tuple[tcp_repair.Setting, ...]


def around(ici: Ici) -> tuple[_Settings, _Settings]:
    """The window's clamp, and with it how far the window may open.

    :return: what is set before the window of *ici*, and what after it. Each changes the clamp, for else the kernel
        looks at nothing. What is before shuts the window of the peer.
    """
    clamp = ici.options.get("TCP_WINDOW_CLAMP", 0)
    if clamp <= 1:
        return (), ()
    lower, back = _clamp(clamp - 1), _clamp(clamp)
    if ici.window.rcv_wnd >= min(clamp, least_bytes(ici)):
        return (lower,), (back,)
    number = ici.copied_seq
    opened = tcp_repair.window_of(seq.add(number, -1), 0, ici.window.max_window, least_bytes(ici), number)
    return (lower, opened, back), ()


def again(ici: Ici) -> _Settings:
    """The same for a socket that has the window of *ici* already, and has it afterwards."""
    before, after = around(ici)
    if after or not before:
        return before + after
    return (*before, tcp_repair.window_(ici.window))


def least_bytes(ici: Ici) -> int:
    """What the window may open to in any case, up to its clamp."""
    return _LEAST_SEGMENTS * ici.negotiated.advmss


def _clamp(size_bytes: int) -> tcp_repair.Setting:
    return TCP, _TCP_WINDOW_CLAMP, size_bytes, "TCP_WINDOW_CLAMP"
