"""Whether an ICI may be given to the kernel: the sanity checks of paper section 7.1.

In repair mode the kernel believes nearly everything it is told, and a wrong number shows only later, to the
peer. So everything is looked at before the first call, and all that is wrong is told at once. What the
kernel can know of a real connection is never refused, even where it looks odd; the comments say where.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from tcpcp.errors import IciError
from tcpcp.record import option_names, seq
from tcpcp.record.ici import FIN_ACKED, FIN_IN, FIN_OUT, VERSION, Ici, Negotiated, State

#: States of a connection that an ICI can describe; the others have no endpoint, or no peer yet.
STATES = FIN_OUT | FIN_IN | {State.ESTABLISHED}
#: RFC 7323 section 2.3: a larger shift would let a window span half the sequence space.
MAX_WSCALE = 14
MAX_WINDOW_BYTES = 65535 << MAX_WSCALE
#: __tcp_select_window() rounds a window up to the next number that the shift can say; 65535 it may always be.
MAX_ROUNDING_BYTES = 65535
#: So that two queues fit a record of the image.
MAX_QUEUE_BYTES = 128 << 20
#: include/uapi/linux/bpf_common.h BPF_MAXINSNS.
MAX_FILTER = 4096
_U32, _U64 = 2**32 - 1, 2**64 - 1
_Ip = IPv4Address | IPv6Address
#: include/net/tcp.h TCP_CA_NAME_MAX is 16 with the final zero; BPF programs may name theirs more freely.
_ALGORITHM = re.compile(r"[A-Za-z0-9_.-]{1,15}")
#: net/core/dev.c dev_valid_name(): IFNAMSIZ is 16 with the final zero.
_DEVICE = re.compile(r"(?!\.{1,2}\Z)[^\s/:\0]{1,15}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the host that is to use an ICI can take.

    :ivar max_send_queue_bytes: of sent and unsent together.
    :ivar max_receive_queue_bytes: the largest receive queue.
    :ivar congestion_algorithms: those that the kernel has, net.ipv4.tcp_available_congestion_control; None:
        not known, any is fine.
    :ivar max_receive_buffer_bytes: the largest SO_RCVBUF, as getsockopt reports it, that the kernel tunes to or
        gives to an application.
    :ivar max_send_buffer_bytes: the same of SO_SNDBUF. Nothing is refused for it: what is in a send queue has
        come with the ICI, and stays there when the buffer is made smaller.
    """

    max_send_queue_bytes: int = MAX_QUEUE_BYTES
    max_receive_queue_bytes: int = MAX_QUEUE_BYTES
    congestion_algorithms: frozenset[str] | None = None
    max_receive_buffer_bytes: int = option_names.INT_MAX
    max_send_buffer_bytes: int = option_names.INT_MAX


def check(ici: Ici, limits: Limits) -> None:
    """Accept *ici*, or refuse it with everything that is wrong.

    :raises IciError: it must not be given to the kernel.
    """
    if found := problems(ici, limits):
        raise IciError([f"{ici}: {problem}" for problem in found])


def problems(ici: Ici, limits: Limits) -> list[str]:
    """What is wrong with *ici*, each a sentence without the connection's name; empty: nothing."""
    found = [*_numbers(ici), *_identity(ici), *_state(ici), *_negotiated(ici.negotiated), *_windows(ici)]
    found += _timestamp(ici)
    found += _queues(ici, limits)
    found += _congestion(ici.congestion.algorithm, limits.congestion_algorithms)
    found += option_names.problems(ici.options, ipv6_socket=ici.ipv6_socket)
    if ici.socket_filter:
        found += _socket_filter(ici)
    return found


_NAMES = (
    *("snd_nxt", "rcv_nxt", "snd_wl1", "snd_wnd", "max_window", "rcv_wnd", "rcv_wup"),
    *("cwnd", "ssthresh", "srtt_us", "rttvar_us", "timestamp value", "ts_recent"),
)


def is_tag(tag: object) -> bool:
    """Whether an image can hold it."""
    return isinstance(tag, int) and 0 <= tag <= _U64


def require_tags(tags: Iterable[object]) -> None:
    """Refuse what no image could hold, before there is one.

    :raises IciError: naming each.
    """
    if found := [f"tag is {tag!r}, must be 0 to {_U64}" for tag in tags if not is_tag(tag)]:
        raise IciError(found)


def _numbers(ici: Ici) -> Iterator[str]:
    """Numbers of the kernel's __u32 variables, and what else has a width."""
    if ici.version != VERSION:
        yield f"version is {ici.version}, this tcpcp knows version {VERSION}"
    if not is_tag(ici.tag):
        yield f"tag is {ici.tag}, must be 0 to {_U64}"
    window, congestion, stamp = ici.window, ici.congestion, ici.timestamp
    values = (
        ici.snd_nxt,
        ici.rcv_nxt,
        window.snd_wl1,
        window.snd_wnd,
        window.max_window,
        window.rcv_wnd,
        window.rcv_wup,
        congestion.cwnd,
        congestion.ssthresh,
        congestion.srtt_us,
        congestion.rttvar_us,
        stamp.value if stamp else 0,
        stamp.echo if stamp else 0,
    )
    if min(values) >= 0 and max(values) <= _U32:
        return
    for name, value in zip(_NAMES, values, strict=True):
        if not 0 <= value <= _U32:
            yield f"{name} is {value}, must be 0 to {_U32}"


def _identity(ici: Ici) -> Iterator[str]:
    """Paper 4.1: the connection identifier."""
    # By bytes: the hash of an address takes as long as all of this.
    yield from _addresses(ici.local.packed, ici.peer.packed, ici.ipv6_socket, ici.device)
    if not 0 <= ici.local.port <= 65535:
        yield f"local port is {ici.local.port}, must be 1 to 65535, or 0 for any free port"
    if not 1 <= ici.peer.port <= 65535:
        yield f"peer port is {ici.peer.port}, must be 1 to 65535"
    for which, ip in (("local", ici.local.ip), ("peer", ici.peer.ip)):
        if isinstance(ip, IPv6Address) and ip.scope_id:
            yield f"{which} address has a scope, which belongs into device: {ip}"


@lru_cache(4096)  # many connections have the same peer
def _addresses(local: bytes, peer: bytes, ipv6_socket: bool, device: str) -> tuple[str, ...]:
    return tuple(_addresses_problems(ip_address(local), ip_address(peer), ipv6_socket, device))


def _addresses_problems(local: _Ip, peer: _Ip, ipv6_socket: bool, device: str) -> Iterator[str]:
    yield from _address_problems("local", local)
    yield from _address_problems("peer", peer)
    if local.version != peer.version:
        yield f"local address {local} and peer address {peer} are of different families"
    elif local.version == 6 and not ipv6_socket:
        yield f"ipv6_socket is false, but the addresses are IPv6: {local}"
    if device and not _DEVICE.fullmatch(device):
        yield f"device {device!r} is not a name of an interface"
    elif not device and any(map(_link_local, (local, peer))):
        yield "device is empty, but a link-local address means nothing without its interface"


def _address_problems(which: str, ip: _Ip) -> Iterator[str]:
    if ip.is_unspecified:
        yield f"{which} address is unspecified: {ip}"
    elif ip.is_multicast:
        yield f"{which} address is multicast: {ip}"
    elif isinstance(ip, IPv4Address) and (ip.packed[0] == 0 or ip.packed == b"\xff" * 4):
        yield f"{which} address is not unicast: {ip}"
    elif isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        yield f"{which} address is IPv4-mapped, must be written as IPv4: {ip}"


def _link_local(ip: _Ip) -> bool:
    return ip.version == 6 and ip.is_link_local


def _state(ici: Ici) -> Iterator[str]:
    """The state, and the FINs that it implies (RFC 9293 section 3.3.2)."""
    state, send = ici.state, ici.send_queue
    if state not in STATES:
        names = ", ".join(sorted(possible.name for possible in STATES))
        yield f"state is {state.name}, must be one of {names}"
        return
    if send.fin != (state in FIN_OUT):
        yield f"send_queue.fin is {send.fin} in state {state.name}"
    if ici.receive_queue.fin != (state in FIN_IN):
        yield f"receive_queue.fin is {ici.receive_queue.fin} in state {state.name}"
    if send.fin_sent and not send.fin:
        yield "send_queue.fin_sent is true without send_queue.fin"
    if send.fin_sent and send.unsent:
        yield f"send_queue.fin_sent is true, but {len(send.unsent)} bytes before the FIN are unsent"
    if state in FIN_ACKED and (send.fin_sent or send.sent or send.unsent):
        yield f"the send queue must be empty in state {state.name}: our FIN has been acknowledged"


def _negotiated(fixed: Negotiated) -> Iterator[str]:
    """Paper 4.2: what the handshake fixed."""
    if not {fixed.timestamps, fixed.sack, fixed.window_scaling, fixed.ecn} <= {False, True}:
        for name in ("timestamps", "sack", "window_scaling", "ecn"):
            if (flag := getattr(fixed, name)) not in (False, True):
                yield f"{name} is {flag}, must be true or false"
    for name, shift in (("snd_wscale", fixed.snd_wscale), ("rcv_wscale", fixed.rcv_wscale)):
        if not 0 <= shift <= MAX_WSCALE:
            yield f"{name} is {shift}, must be 0 to {MAX_WSCALE}"
        elif shift and not fixed.window_scaling:
            yield f"{name} is {shift} without window scaling"
    # Below net.ipv4.tcp_min_snd_mss the kernel uses that instead; a peer may announce less all the same.
    for name, mss in (("mss_clamp", fixed.mss_clamp), ("advmss", fixed.advmss)):
        if not 1 <= mss <= 65535:
            yield f"{name} is {mss}, must be 1 to 65535"


def _windows(ici: Ici) -> Iterator[str]:
    """Paper 4.4, and the checks of net/ipv4/tcp.c tcp_repair_set_window().

    With the peer's FIN the kernel is given rcv_wup - 1 and rcv_wnd + 1 while rcv_nxt is one less: the same.
    """
    window = ici.window
    shift = ici.negotiated.snd_wscale if 0 <= ici.negotiated.snd_wscale <= MAX_WSCALE else MAX_WSCALE
    if window.max_window < window.snd_wnd:
        yield f"max_window {window.max_window} is below snd_wnd {window.snd_wnd}"
    if window.max_window > 65535 << shift:
        yield f"max_window {window.max_window} is over 65535 << {shift}, more than a segment can say"
    # Not 65535 << rcv_wscale: the kernel may keep a window in mind that it cannot say (tcp_select_window()).
    if window.rcv_wnd > MAX_WINDOW_BYTES:
        yield f"rcv_wnd {window.rcv_wnd} is over {MAX_WINDOW_BYTES}"
    if seq.before(seq.add(ici.rcv_nxt, window.rcv_wnd), window.snd_wl1):
        yield f"snd_wl1 {window.snd_wl1} is after rcv_nxt + rcv_wnd, {ici.rcv_nxt} + {window.rcv_wnd}"
    # Also not more than rcv_wnd apart: the kernel accepts a segment that begins in the window but ends
    # behind it (net/ipv4/tcp_input.c tcp_sequence()).
    if not 0 <= seq.diff(ici.rcv_nxt, window.rcv_wup) <= MAX_WINDOW_BYTES:
        yield f"rcv_wup {window.rcv_wup} is not in the last {MAX_WINDOW_BYTES} before rcv_nxt {ici.rcv_nxt}"


def _timestamp(ici: Ici) -> Iterator[str]:
    """Paper 4.5."""
    stamp = ici.timestamp
    if ici.negotiated.timestamps != (stamp is not None):
        yield f"timestamps were {'' if stamp is None else 'not '}negotiated, but timestamp is {stamp}"
    if stamp and stamp.value & 1 != stamp.microseconds:
        # do_tcp_setsockopt() TCP_TIMESTAMP since 6.7 takes the unit from bit 0, not from us.
        unit = "microseconds" if stamp.microseconds else "milliseconds"
        yield f"timestamp value {stamp.value} is in {unit}, but its bit 0 says the other unit"


def _queues(ici: Ici, limits: Limits) -> Iterator[str]:
    """Paper 4.6 and 4.7."""
    queued = len(ici.send_queue.sent) + len(ici.send_queue.unsent)
    if queued > limits.max_send_queue_bytes:
        yield f"the send queue has {queued} bytes, the limit is {limits.max_send_queue_bytes}"
    # Bytes sent against the window are possible (the peer may shrink it), against the largest window not.
    if len(ici.send_queue.sent) > MAX_WINDOW_BYTES:
        yield f"{len(ici.send_queue.sent)} bytes sent and not acknowledged are more than any window"
    if len(ici.receive_queue.data) > limits.max_receive_queue_bytes:
        unread = len(ici.receive_queue.data)
        yield f"the receive queue has {unread} bytes, the limit is {limits.max_receive_queue_bytes}"
    yield from _chosen(ici, limits)
    yield from _room(ici, limits)


def _chosen(ici: Ici, limits: Limits) -> Iterator[str]:
    """Buffers whose size the application has chosen; those that the kernel tunes are made smaller instead."""
    locks = ici.options.get("SO_BUF_LOCK", 0)
    if not locks:
        return
    most = {
        "SO_SNDBUF": (option_names.SNDBUF_LOCK, limits.max_send_buffer_bytes, "wmem_max"),
        "SO_RCVBUF": (option_names.RCVBUF_LOCK, limits.max_receive_buffer_bytes, "rmem_max"),
    }
    for name, (bit, bound, sysctl) in most.items():
        size = ici.options.get(name, 0)
        if locks & bit and size > bound:
            yield (
                f"{name} is {size}, which the application has chosen; this host permits {bound}: "
                f"raise net.core.{sysctl} to {size // 2}"
            )


def _room(ici: Ici, limits: Limits) -> Iterator[str]:
    """Whether this host has room for what waits and what the peer may send besides, unasked (paper 4.4).

    On a host with the same limits the two were never more than the largest buffer: the kernel announces what is
    free in it (net/ipv4/tcp_output.c __tcp_select_window()), rounded up to what the shift can say, and a byte
    takes more than its own room there (tcp_input.c tcp_try_rmem_schedule()). A buffer that is made smaller
    takes no window back, but that was announced from the larger one. Only SO_RCVBUFFORCE goes beyond; so as
    much as a receive queue may hold may be promised as well.
    """
    unread, window = len(ici.receive_queue.data), ici.window
    promised = max(seq.diff(seq.add(window.rcv_wup, window.rcv_wnd), ici.rcv_nxt), 0)
    buffer = limits.max_receive_buffer_bytes + MAX_ROUNDING_BYTES
    if unread + promised > max(buffer, limits.max_receive_queue_bytes):
        yield (
            f"{unread} bytes unread and {promised} that the peer may send are more than a receive buffer here "
            f"may hold, {limits.max_receive_buffer_bytes}; raise the last number of net.ipv4.tcp_rmem"
        )


def _socket_filter(ici: Ici) -> Iterator[str]:
    """Its length; what the program does is checked by the kernel (net/core/filter.c bpf_check_classic())."""
    instructions, rest = divmod(len(ici.socket_filter), 8)
    if rest or instructions > MAX_FILTER:
        yield f"socket_filter has {len(ici.socket_filter)} bytes, must be 8 each for at most {MAX_FILTER}"


@lru_cache(256)  # most connections of a host have the same
def _congestion(name: str, available: frozenset[str] | None) -> tuple[str, ...]:
    """Paper 5. The numbers are only advice for the path; the name must exist."""
    return tuple(_name_problems(name, available))


def _name_problems(name: str, available: frozenset[str] | None) -> Iterator[str]:
    if not _ALGORITHM.fullmatch(name):
        yield f"congestion algorithm {name!r} is not a name of one"
    elif available is not None and name not in available:
        yield f"congestion algorithm {name} is not available here; modprobe tcp_{name}"
