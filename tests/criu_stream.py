"""What a tcp-stream image of CRIU's says, in the words of an ICI: the inverse of what the library writes.

For tests of images that are whole; written with CRIU's own messages and nothing else of the library.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from tcpcp.criu.images import (
    TCPI_OPT_ECN,
    TCPI_OPT_SACK,
    TCPI_OPT_TIMESTAMPS,
    TCPI_OPT_USEC_TS,
    TCPI_OPT_WSCALE,
    pb,
)
from tcpcp.record import seq
from tcpcp.record.ici import FIN_IN, FIN_OUT, Negotiated, ReceiveQueue, SendQueue, State, Window

#: Magic numbers of the image and of its kind, and the length of the entry.
_HEAD = struct.Struct("<III")
_FIN_OUT, _FIN_IN = FIN_OUT | {State.CLOSE}, FIN_IN | {State.CLOSE}
_FIN_ACKED = frozenset({State.FIN_WAIT2, State.CLOSE})


@dataclass(frozen=True, slots=True)
class TcpStream:
    """What a tcp-stream image says, in the words of an ICI; what an ICI has and it has not is left out.

    Not in it: ``receive_queue.shut``.

    :ivar timestamp: value of TCP_TIMESTAMP, or None; bit 0 is the unit since Linux 6.7.
    :ivar window: None in images of kernels before 4.8.
    """

    negotiated: Negotiated
    snd_nxt: int
    rcv_nxt: int
    send_queue: SendQueue
    receive_queue: ReceiveQueue
    window: Window | None
    timestamp: int | None
    microseconds: bool


def parse(data: bytes, state: State) -> TcpStream:
    """What *data* says of a socket in *state*, without which a FIN cannot be told from a byte."""
    start = _HEAD.size + _HEAD.unpack_from(data)[2]
    entry = pb.tcp_stream_entry.FromString(data[_HEAD.size : start])
    unread, queued = data[start : start + entry.inq_len], data[start + entry.inq_len :]
    assert len(queued) == entry.outq_len >= entry.unsq_len
    sent = len(queued) - entry.unsq_len
    return _stream(entry, state, unread, queued[:sent], queued[sent:])


def _stream(entry: Any, state: State, unread: bytes, sent: bytes, unsent: bytes) -> TcpStream:
    fin_in, fin_out = state in _FIN_IN, state in _FIN_OUT
    # CRIU does not say whether the FIN has been sent; it cannot have been while bytes before it are unsent.
    fin_sent = fin_out and state not in _FIN_ACKED and not unsent
    fin_unsent = fin_out and state not in _FIN_ACKED and not fin_sent
    window = ("snd_wl1", "snd_wnd", "max_window", "rcv_wnd", "rcv_wup")
    return TcpStream(
        negotiated=Negotiated(
            timestamps=bool(entry.opt_mask & TCPI_OPT_TIMESTAMPS),
            sack=bool(entry.opt_mask & TCPI_OPT_SACK),
            window_scaling=bool(entry.opt_mask & TCPI_OPT_WSCALE and (entry.snd_wscale or entry.rcv_wscale)),
            ecn=bool(entry.opt_mask & TCPI_OPT_ECN),
            snd_wscale=entry.snd_wscale,
            rcv_wscale=entry.rcv_wscale,
            mss_clamp=entry.mss_clamp,
            advmss=0,
        ),
        snd_nxt=seq.add(entry.outq_seq, -len(unsent) - fin_unsent),
        rcv_nxt=entry.inq_seq,
        send_queue=SendQueue(sent, unsent, fin_out, fin_sent),
        receive_queue=ReceiveQueue(unread, fin_in),
        window=Window(*(getattr(entry, name) for name in window)) if entry.HasField("snd_wnd") else None,
        timestamp=entry.timestamp if entry.HasField("timestamp") else None,
        microseconds=bool(entry.opt_mask & TCPI_OPT_USEC_TS),
    )
