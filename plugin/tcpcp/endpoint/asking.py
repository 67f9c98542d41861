"""Asks a peer that had shut its window whether it is open again, where the kernel would wait for its own timer.

That the window has been opened the peer says once. What said so in the gap is lost, and then it is for us to ask
(RFC 9293 section 3.8.6.1). The timer for that has backed off while we held the connection, or begins anew, with
three seconds. In ESTABLISHED the kernel asks when repair mode is switched off; in the other states it has no call
for that (net/ipv4/tcp_output.c tcp_send_window_probe()). So the segment that it would send then is sent here by a
raw socket: an acknowledgement from before the peer's window, without data, which any peer answers with one that
tells its window, and makes nothing else of (section 3.10.7.4).

Best effort: without CAP_NET_RAW it is left to the kernel's timer.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import NamedTuple

from tcpcp.endpoint import flow_label, raw_segment, repair_mode, socket_ends
from tcpcp.errors import TcpcpError
from tcpcp.kernel import fields, tcp_repair
from tcpcp.record import seq
from tcpcp.record.ici import Endpoint, Ici, State

#: States in which something may wait to be sent, and the kernel does not ask by itself.
_UNASKED = frozenset({State.FIN_WAIT1, State.CLOSE_WAIT, State.CLOSING, State.LAST_ACK})
#: How long is tried, s, on a busy machine, to have a segment leave with a timestamp that is not late by then.
PATIENCE_S = 0.02
#: So long ago, s, the clock may have been read when the segment is sent, and have moved on when it was read; and
#: how often it is looked at. One of milliseconds is told to have moved on every second time it does.
_AT_ONCE_S, _JUST_S, _LOOK_S = 0.0001, 0.0006, 0.0001
_WITHOUT_ECN = 0xFC
#: include/uapi/linux/in.h; of its values IP_PMTUDISC_WANT and IP_PMTUDISC_DO.
_IP_MTU_DISCOVER, _NOT_TO_FRAGMENT = 10, frozenset({1, 2})


def waits(sock: socket.socket) -> bool:
    """Whether only a larger window lets *sock*, which is in repair mode, go on sending.

    What is under way will be acknowledged, and the window told along with that.
    """
    unsent = tcp_repair.get_outq_nsd(sock)
    if not unsent or tcp_repair.get_outq(sock) != unsent:
        return False
    return tcp_repair.get_send_window(sock) < min(unsent, tcp_repair.get_info(sock).snd_mss)


def may_ask(ici: Ici) -> bool:
    """Whether it may come to a question on the connection of *ici* that has in it what only BPF tells.

    It has to echo what has come just before, and of IPv6 to have the flow label.
    """
    told_by_bpf = ici.timestamp is not None or ici.local.ip.version == 6
    return told_by_bpf and ici.state in _UNASKED and bool(ici.send_queue.unsent)


class Question(NamedTuple):
    """The segment to :func:`ask` with, but for its own timestamp; *window* as on the wire.

    :ivar echoed: the peer's last timestamp until then; None: none are sent.
    """

    local: Endpoint
    peer: Endpoint
    number: int
    awaited: int
    window: int
    echoed: int | None
    marks: raw_segment.Marks


def question(
    sock: socket.socket, state: int, recent: int = 0, acknowledged: int | None = None
) -> Question | None:
    """What to :func:`ask` the peer of *sock*, which is in repair mode; None where there is nothing to be asked.

    :param state: in which *sock* is. :param recent: the peer's last timestamp, where that is known.
    :param acknowledged: ``snd_una``; None: it is asked.
    """
    with contextlib.suppress(TcpcpError):
        if state in _UNASKED and waits(sock):
            if acknowledged is None:
                acknowledged = repair_mode.acknowledged(sock)
            return _question(sock, recent, acknowledged)
    return None


def _question(sock: socket.socket, recent: int, acknowledged: int) -> Question:
    """As tcp_xmit_probe_skb() makes it."""
    local, peer, _ = socket_ends.ends(sock)
    awaited = repair_mode.received(sock)
    number = seq.add(acknowledged, -1)
    info, ours = tcp_repair.get_info(sock), tcp_repair.get_window(sock)
    room = seq.add(ours.rcv_wup, ours.rcv_wnd - awaited)
    # Rounded up, as the kernel does, so that the right edge does not go back (tcp_select_window()).
    window = min(-(-room >> info.rcv_wscale), 0xFFFF)
    stamped = bool(info.options & tcp_repair.HAS_TIMESTAMPS)
    marks = _marks(sock, ipv4=peer.ip.version == 4)
    return Question(local, peer, number, awaited, window, recent if stamped else None, marks)


def _marks(sock: socket.socket, *, ipv4: bool) -> raw_segment.Marks:
    """Those of all that *sock* sends without data (net/ipv4/ip_output.c __ip_queue_xmit(), ip_dont_fragment()).

    But for the flow label, which is that of the moment.
    """
    if not ipv4:
        hops = tcp_repair.get_int(sock, socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, "IPV6_UNICAST_HOPS")
        class_ = tcp_repair.get_int(sock, socket.IPPROTO_IPV6, socket.IPV6_TCLASS, "IPV6_TCLASS")
        return raw_segment.Marks(hops, class_ & _WITHOUT_ECN)
    hops = tcp_repair.get_int(sock, socket.IPPROTO_IP, socket.IP_TTL, "IP_TTL")
    tos = tcp_repair.get_int(sock, socket.IPPROTO_IP, socket.IP_TOS, "IP_TOS")
    discover = tcp_repair.get_int(sock, socket.IPPROTO_IP, _IP_MTU_DISCOVER, "IP_MTU_DISCOVER")
    return raw_segment.Marks(hops, tos & _WITHOUT_ECN, discover in _NOT_TO_FRAGMENT)


def ask(sock: socket.socket, asked: Question | None) -> None:
    """Send *asked* by the way of *sock*, which is not isolated any more; may take :data:`PATIENCE_S`.

    Should it not leave, the kernel asks by its own timer.
    """
    if asked is None:
        return
    family = raw_segment.family(asked.peer)
    refused = contextlib.suppress(OSError, TcpcpError)
    with refused, socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        if tcp_repair.get_namespace(raw) == tcp_repair.get_namespace(sock):
            address = _address(asked.peer, _go_its_way(raw, sock))
            raw.sendto(_segment(sock, asked), address)


def _segment(sock: socket.socket, asked: Question) -> bytes:
    """The segment, to be sent at once: what the kernel sends meanwhile, in answer to the peer, comes before it.

    Both of its timestamps may be older then, and the peer drop it for that (RFC 7323 section 5.3; Linux does not
    answer it: net/ipv4/tcp_input.c tcp_disordered_ack_check()). Nothing is lost: the peer has spoken, and told its
    window along with that. What it echoes nobody times, for it acknowledges nothing new (section 4.3).
    """
    if asked.peer.ip.version == 6:
        asked = asked._replace(marks=asked.marks._replace(flow_label=flow_label.of(sock)))
    if asked.echoed is None:
        return _built(asked)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        now, read_at = _later(sock, deadline)
        segment = _built(asked, (now, _recent(sock) or asked.echoed))
        if (built_at := time.monotonic()) - read_at < _AT_ONCE_S or built_at > deadline:
            return segment


def _built(asked: Question, timestamp: tuple[int, int] | None = None) -> bytes:
    return raw_segment.build(
        asked.local,
        asked.peer,
        seq=asked.number,
        ack=asked.awaited,
        flags=raw_segment.ACK,
        window=asked.window,
        timestamp=timestamp,
        marks=asked.marks,
    )


def _recent(sock: socket.socket) -> int:
    """The peer's last timestamp: one may have come, and been echoed, since the question; 0: it cannot be read.

    It can once :func:`tcpcp.kernel.fields.prepare` was called: see :func:`may_ask`.
    """
    return fields.read([sock])[0].ts_recent or 0


def _later(sock: socket.socket, deadline: float) -> tuple[int, float]:
    """A time of the clock of *sock* that is after all it has stamped, and not after what it stamps from now on.

    And when it was read. The kernel tells the clock without its last bit, in which it tells its unit: so it is read
    when it has just moved on, or after *deadline*.
    """
    now, read_at = tcp_repair.get_timestamp(sock), time.monotonic()
    while True:
        before, looked_at = now, read_at
        time.sleep(_LOOK_S)
        now, read_at = tcp_repair.get_timestamp(sock), time.monotonic()
        if now != before and (read_at - looked_at < _JUST_S or read_at > deadline):
            return now, read_at


def _go_its_way(raw: socket.socket, sock: socket.socket) -> str:
    """Have *raw* take the route of *sock*; the interface that this is bound to, or ""."""
    if mark := sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    if device := socket_ends.device(sock):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
    return device


def _address(peer: Endpoint, device: str) -> tuple[str, int] | tuple[str, int, int, int]:
    if peer.ip.version == 4:
        return str(peer.ip), 0
    return str(peer.ip), 0, 0, socket.if_nametoindex(device) if peer.is_link_local and device else 0
