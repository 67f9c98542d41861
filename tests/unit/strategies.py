"""Hypothesis strategies: ICIs that a real connection could have, and damage to bytes. Reusable."""

from __future__ import annotations

import ipaddress

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tcpcp.record import option_names, seq
from tcpcp.record.ici import (
    FIN_ACKED,
    FIN_IN,
    FIN_OUT,
    Congestion,
    Endpoint,
    Ici,
    Negotiated,
    ReceiveQueue,
    SendQueue,
    State,
    Timestamp,
    Window,
)

#: Sequence numbers, with those around the wrap more often than chance would have them.
u32: SearchStrategy[int] = st.one_of(
    st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(2**32 - 40, 2**32 - 1)
)
queues: SearchStrategy[bytes] = st.one_of(st.just(b""), st.binary(max_size=64))
states = st.sampled_from(sorted(FIN_OUT | FIN_IN | {State.ESTABLISHED}))

_V4 = st.ip_addresses(network="10.0.0.0/8") | st.ip_addresses(network="172.16.0.0/12")
_V6 = st.ip_addresses(network="fd00::/8") | st.ip_addresses(network="2001:db8::/32")
_LINK_LOCAL = st.ip_addresses(network="fe80::/64").filter(lambda ip: ip != ipaddress.ip_address("fe80::"))


@st.composite
def negotiated(draw: DrawFn) -> Negotiated:
    shifts = st.integers(0, 14) if draw(st.booleans()) else st.just(0)
    snd_wscale, rcv_wscale = draw(shifts), draw(shifts)
    return Negotiated(
        timestamps=draw(st.booleans()),
        sack=draw(st.booleans()),
        window_scaling=snd_wscale + rcv_wscale > 0,
        ecn=draw(st.booleans()),
        snd_wscale=snd_wscale,
        rcv_wscale=rcv_wscale,
        mss_clamp=draw(st.integers(1, 65535)),
        advmss=draw(st.integers(1, 65535)),
    )


@st.composite
def send_queues(draw: DrawFn, state: State) -> SendQueue:
    fin = state in FIN_OUT
    if state in FIN_ACKED:
        return SendQueue(fin=True)
    fin_sent = fin and draw(st.booleans())
    return SendQueue(draw(queues), b"" if fin_sent else draw(queues), fin, fin_sent)


@st.composite
def windows(draw: DrawFn, fixed: Negotiated, rcv_nxt: int) -> Window:
    max_window = draw(st.integers(0, 65535 << fixed.snd_wscale))
    rcv_wnd = draw(st.integers(0, 65535 << fixed.rcv_wscale))
    return Window(
        snd_wl1=seq.add(rcv_nxt, draw(st.integers(-(2**20), rcv_wnd))),
        snd_wnd=draw(st.integers(0, max_window)),
        max_window=max_window,
        rcv_wnd=rcv_wnd,
        rcv_wup=seq.add(rcv_nxt, -draw(st.integers(0, rcv_wnd))),
    )


@st.composite
def timestamps(draw: DrawFn) -> Timestamp:
    microseconds = draw(st.booleans())
    value = draw(u32) & ~1 | microseconds
    return Timestamp(value, microseconds, draw(st.none() | u32))


@st.composite
def _options(draw: DrawFn, ipv6_socket: bool) -> dict[str, int]:
    possible = [o for o in option_names.OPTIONS.values() if ipv6_socket or not o.ipv6_only]
    chosen = draw(st.lists(st.sampled_from(possible), max_size=4, unique=True))
    values = {option.name: draw(st.integers(option.minimum, option.maximum)) for option in chosen}
    # Every connection has two buffers.
    return {"SO_SNDBUF": 16384, "SO_RCVBUF": 131072} | values


@st.composite
def _ends(draw: DrawFn) -> tuple[Endpoint, Endpoint, bool, str]:
    """local, peer, ipv6_socket, device"""
    addresses = draw(st.sampled_from([_V4, _V6, _LINK_LOCAL]))
    local = Endpoint(draw(addresses), draw(st.integers(1, 65535)))
    peer = Endpoint(draw(addresses), draw(st.integers(1, 65535)))
    ipv6_socket = local.ip.version == 6 or draw(st.booleans())
    device = "eth0" if addresses is _LINK_LOCAL else draw(st.sampled_from(["", "lo", "wlan0.12"]))
    return local, peer, ipv6_socket, device


@st.composite
def icis(draw: DrawFn) -> Ici:
    """An ICI in which :func:`tcpcp.record.checks.problems` finds nothing."""
    state, fixed, rcv_nxt = draw(states), draw(negotiated()), draw(u32)
    local, peer, ipv6_socket, device = draw(_ends())
    algorithm = draw(st.sampled_from(["cubic", "bbr", "dctcp-reno", "reno"]))
    return Ici(
        state=state,
        local=local,
        peer=peer,
        negotiated=fixed,
        snd_nxt=draw(u32),
        rcv_nxt=rcv_nxt,
        window=draw(windows(fixed, rcv_nxt)),
        congestion=Congestion(algorithm, draw(u32), draw(u32), draw(u32), draw(u32)),
        timestamp=draw(timestamps()) if fixed.timestamps else None,
        send_queue=draw(send_queues(state)),
        receive_queue=ReceiveQueue(draw(queues), state in FIN_IN, draw(st.booleans())),
        options=draw(_options(ipv6_socket)),
        ipv6_socket=ipv6_socket,
        device=device,
        tag=draw(st.integers(0, 2**64 - 1)),
        socket_filter=draw(st.binary(max_size=3)) * 8,
    )


@st.composite
def damaged(draw: DrawFn, data: bytes) -> bytes:
    """*data* with a few bytes overwritten, cut out or put in; now and then as it was."""
    result = bytearray(data)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(result)))
        cut = draw(st.integers(0, 4))
        result[at : at + cut] = draw(st.binary(max_size=4))
    return bytes(result)
