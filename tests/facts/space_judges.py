"""What an endpoint is, asked of the kernel by calls of our own and of ss, and what may differ after a pass.

Whatever is read is compared; a field that may differ stands in a table below, with the reason.
"""

from __future__ import annotations

import dataclasses
import re
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from netns import Namespace
from space_case import Case
from space_pairs import (
    NO_QUEUE,
    QUEUE,
    RECEIVE,
    SEND,
    TCP,
    TIMESTAMP,
    WINDOW,
    Pair,
    announced,
    queue_seq,
    repaired,
)
from space_states import CORKED_BYTES, SIOCINQ, SIOCOUTQ, SIOCOUTQNSD, queued

Fields = dict[str, Any]
Options = Mapping[tuple[int, int], bytes]
SO_PEEK_OFF = 42

# --- the socket in repair mode --------------------------------------------------------------------------

#: Of struct tcp_info, by offset; 4 bytes each.
_INFO = {
    "snd_mss": 16, "rcv_mss": 20, "pmtu": 60, "rtt": 68, "rttvar": 72, "ssthresh": 76, "cwnd": 80, "advmss": 84,
    "segs_out": 136, "snd_wnd": 228, "rcv_wnd": 232,
}  # fmt: skip


#: When the last segment was sent so long ago, its pace lets nothing be sent while the send queue is selected: then
#: all that waits would count as sent (test_unsent.py).
PACED_S = 0.005


def frozen(sock: socket.socket) -> Fields:
    """A socket in repair mode, as the library leaves it, and leaves it so."""
    raw = sock.getsockopt(TCP, socket.TCP_INFO, 256).ljust(256, b"\0")
    # Without TCPI_OPT_ECN_SEEN, which says what has arrived.
    found: Fields = {"state": raw[0], "agreed": raw[5] & ~16, "wscales": raw[6]}
    found |= {name: struct.unpack_from("=I", raw, at)[0] for name, at in _INFO.items()}
    window = struct.unpack("=5I", sock.getsockopt(TCP, WINDOW, 20))
    found |= dict(
        zip(("wl1", "repair snd_wnd", "max_window", "repair rcv_wnd", "rcv_wup"), window, strict=True)
    )
    found["mss_clamp"] = sock.getsockopt(TCP, socket.TCP_MAXSEG)
    found["clock"] = sock.getsockopt(TCP, TIMESTAMP) % 2**32
    for name, request in (("outq", SIOCOUTQ), ("outq_nsd", SIOCOUTQNSD), ("inq", SIOCINQ)):
        found[name] = queued(sock, request)
    if found["outq_nsd"]:
        time.sleep(PACED_S)
    found["write_seq"], found["sent and unsent"] = queue_seq(sock, SEND), _peek_send(sock, found)
    found["rcv_nxt"], found["unread"] = queue_seq(sock, RECEIVE), _peek(sock)
    sock.setsockopt(TCP, QUEUE, NO_QUEUE)
    return found


def _peek_send(sock: socket.socket, found: Fields) -> bytes:
    """Without what stands before snd_una in the first buffer."""
    fin = found["state"] in (4, 9, 11)
    size = 0 if found["state"] in (5, 7) else found["outq"] - fin
    if size <= 0:
        return b""
    data = sock.recv(size + 65536, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    return data[:size]


def _peek(sock: socket.socket) -> bytes:
    """The receive queue, whose peek offset, where the application has one, stays."""
    offset = sock.getsockopt(socket.SOL_SOCKET, SO_PEEK_OFF)
    if offset >= 0:
        sock.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, -1)
    timeout = sock.gettimeout()
    sock.settimeout(0)
    try:
        return sock.recv(1 << 24, socket.MSG_PEEK)
    except BlockingIOError:
        return b""
    finally:
        sock.settimeout(timeout)
        if offset >= 0:
            sock.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, offset)


#: Advice for the path (paper 5): only where it is the same path, and then nearly.
_ADVICE = {"cwnd", "ssthresh", "rtt", "rttvar"}
#: How exactly a round-trip time can be taught: a tick of the timers (HZ 250) or two.
TAUGHT_US = 10_000


class Stall:
    """How long this thread did not run in a ``with`` block, which is as late as a clock that it reads may be.

    :ivar us: in microseconds, after the block.
    """

    def __enter__(self) -> Self:
        self._began = time.monotonic() - time.thread_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.us = int((time.monotonic() - time.thread_time() - self._began) * 1e6)


def rebuilt(before: Fields, after: Fields, case: Case, stamp: int | None, stalled_us: int) -> Iterator[str]:
    """What differs between the socket that was got and the one created from it; nothing was sent between.

    :param stamp: the timestamp in the ICI, from which the clock goes on.
    :param stalled_us: for so long the call that created it, or this one, did not run.
    """
    for name in before:
        if name in _ADVICE or name in ("clock", "rcv_mss", "segs_out") or _told_anew(name, before, after):
            continue
        if before[name] != after[name] and not _explained(name, before[name], after[name], case):
            yield f"{name}: {short(before[name])} -> {short(after[name])}"
    if after["rcv_mss"] != (guess := _first_guess(after, case)):
        yield f"rcv_mss: {before['rcv_mss']} -> {after['rcv_mss']}, after a handshake {guess}"
    if stamp is not None:
        ticks = (after["clock"] - stamp) % 2**32
        if ticks > (100_000 + stalled_us) // (1000 if case.stamps == "ms" else 1):
            yield f"clock: {stamp} was read, {after['clock']} is set"
    if case.same_path and case.state not in ("CLOSE",):
        yield from _advice(before, after, case, stalled_us)


def _first_guess(after: Fields, case: Case) -> int:
    """How large the peer's segments are, as guessed by connect(), and by a handshake (tcp_initialize_rcv_mss()).

    What comes in larger is measured, and from that how much of the buffer is window: with too low a guess any
    small segment says that (tcp_measure_rcv_mss()). What was measured before cannot be set, and is measured
    anew by the next full segment. The header's length is by the sysctl: see :func:`but_for_room`.
    """
    path = after["pmtu"] - (60 if case.version == 6 else 40)
    # TCP_MAXSEG takes no more, and without it connect() knows only what every path can (tcp_v6_connect()).
    unsaid = 1220 if case.version == 6 else 536
    said = after["advmss"] if after["advmss"] < 32768 else unsaid
    ours = min(path, said) - 12 * (not case.elsewhere)
    peers = after["mss_clamp"] - 12 * bool(case.stamps)
    return max(88, min(536, ours, peers))


#: TCPI_OPT_WSCALE.
_SCALING = 4


def _explained(name: str, before: Any, after: Any, case: Case) -> bool:
    """Differences that no call can mend, or that are none.

    Window scaling with shifts of 0 is none: no segment is another for it.

    Segment size in use: connect() counts the header's length by the sysctl, not by what is agreed
    (tcp_connect_init()), and the size is without the options; tcp_current_mss() mends it for each segment.
    What we announced: TCP_MAXSEG, which limits it, takes 88 to 32767 only (do_tcp_setsockopt()).
    """
    if name == "agreed":
        return bool(before ^ after == _SCALING)  # the shifts themselves are compared on their own
    if name == "snd_mss" and case.state == "CLOSE":
        return True  # nothing is sent any more
    if name == "snd_mss":
        longer = 12 * ((not case.elsewhere) - bool(case.stamps))
        return bool(after - before == -longer)
    if name == "advmss":
        own_route = bool(case.advmss) and after < before  # the route that said it is not there any more
        return (before < 88 and after == 88) or before > 32767 or own_route
    return False


#: What every transmission tells anew (tcp_select_window()).
_TOLD = ("rcv_wnd", "repair rcv_wnd", "rcv_wup")


def in_use(sock: socket.socket) -> Fields:
    """What a timer may change of *sock*, also where nothing it sends gets out; of a socket in use."""
    raw = sock.getsockopt(TCP, socket.TCP_INFO, 256).ljust(256, b"\0")
    names = ("segs_out", *sorted(_ADVICE))
    return {name: struct.unpack_from("=I", raw, _INFO[name])[0] for name in names}


def read(before: Fields, got: Fields, ici: Any) -> Iterator[str]:
    """The ICI has what the socket had before, or has since it was read, when a timer may have expired.

    From here on *got* has what the ICI has, so that this is what the new socket is compared with.
    """
    path = ici.congestion
    found = {"cwnd": path.cwnd, "ssthresh": path.ssthresh, "rtt": path.srtt_us, "rttvar": path.rttvar_us}
    for name, value in found.items():
        if value not in (before[name], got[name]):
            yield f"read {name}: {value}, was {before[name]}, is {got[name]}"
    got |= found
    if got["segs_out"] > before["segs_out"]:
        got |= dict(zip(_TOLD, (ici.window.rcv_wnd, ici.window.rcv_wnd, ici.window.rcv_wup), strict=True))


def _told_anew(name: str, before: Fields, after: Fields) -> bool:
    """Whether the window is another because something was sent meanwhile, in vain; not a smaller one.

    By a timer: again, or what is new, as a loss probe, or it acknowledges what was fed to the new socket. What a
    filter drops is in no other count (net/ipv4/tcp_output.c tcp_write_xmit(), tcp_send_loss_probe()).
    """
    edges = ((fields["rcv_wup"] + fields["repair rcv_wnd"]) % 2**32 for fields in (before, after))
    return name in _TOLD and after["segs_out"] > 0 and _forward(*edges)


def _advice(before: Fields, after: Fields, case: Case, stalled_us: int) -> Iterator[str]:
    if abs(before["cwnd"] - after["cwnd"]) > 1:
        yield f"cwnd: {before['cwnd']} -> {after['cwnd']}"
    # bbr has none of its own, and says so when it begins (bbr_init()).
    if before["ssthresh"] != after["ssthresh"] and case.algorithm != "bbr":
        yield f"ssthresh: {before['ssthresh']} -> {after['ssthresh']}"
    late = after["rtt"] - before["rtt"]
    if case.stamps and before["rtt"] and not -TAUGHT_US <= late <= TAUGHT_US + stalled_us:
        yield f"rtt: {before['rtt']} -> {after['rtt']} us"


def short(value: object) -> str:
    """For a line of text."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes" if len(value) > 8 else value.hex()
    return str(value)


# --- the socket in use ----------------------------------------------------------------------------------

#: Not asked for: (level, number). Those of repair mode, and those that are no state of the connection.
_NOT_ASKED = {
    (1, 4): "SO_ERROR, asking clears it",
    (1, 49): "SO_INCOMING_CPU: where the last packet came in",
    (1, 55): "SO_MEMINFO: changes with every packet; rcvbuf and sndbuf are asked for on their own",
    (1, 56): "SO_INCOMING_NAPI_ID: likewise",
    (1, 57): "SO_COOKIE: the socket's own number",
    (6, 11): "TCP_INFO: see frozen()",
    (6, 12): "TCP_QUICKACK: the kernel goes to and fro by itself",
    (6, 19): "TCP_REPAIR", (6, 20): "TCP_REPAIR_QUEUE", (6, 21): "TCP_QUEUE_SEQ", (6, 22): "TCP_REPAIR_OPTIONS",
    (6, 24): "TCP_TIMESTAMP: see frozen()", (6, 29): "TCP_REPAIR_WINDOW",
    (6, 26): "TCP_CC_INFO: the algorithm's own notes on the path",
    (6, 28): "TCP_SAVED_SYN", (6, 35): "TCP_ZEROCOPY_RECEIVE: no question but an act",
    (0, 33): "IP_MULTICAST_TTL", (41, 17): "IPV6_MULTICAST_IF", (41, 18): "IPV6_MULTICAST_HOPS",  # from the SYN
    (0, 52): "IP_PROTOCOL: the bound port, which an accepted socket that was closed has no longer",
    (0, 14): "IP_MTU", (41, 24): "IPV6_MTU", (41, 61): "IPV6_PATHMTU",  # of the route; pmtu is in frozen()
    (41, 32): "IPV6_FLOWLABEL_MGR: a question with an argument",
    (0, 41): "IP_MSFILTER: likewise", (0, 48): "MCAST_MSFILTER: likewise", (41, 48): "MCAST_MSFILTER: likewise",
    (41, 6): "IPV6_2292PKTOPTIONS", (0, 9): "IP_PKTOPTIONS",
}  # fmt: skip
_LEVELS = {1: "SOL_SOCKET", 0: "IP", 6: "TCP", 41: "IPV6"}
_MOST_OPTIONS = {1: 84, 0: 54, 6: 48, 41: 63}


def options(sock: socket.socket) -> dict[tuple[int, int], bytes]:
    """Every socket option that can be read, known to the library or not; those of IPv6 on IPv6 sockets."""
    found = {}
    for level, most in _MOST_OPTIONS.items():
        for number in range(1, most):
            if (level, number) not in _NOT_ASKED:
                try:
                    found[level, number] = sock.getsockopt(level, number, 64)
                except OSError as exc:
                    found[level, number] = f"errno {exc.errno}".encode()
    return found


def options_kept(before: Options, after: Options, case: Case, window: int) -> Iterator[str]:
    """:param window: the peer's now."""
    for level, number in before:
        same = _value(level, number, before) == _value(level, number, after)
        if not same and not _option_explained(level, number, before, after, case, window):
            values = [_value(level, number, which) for which in (before, after)]
            yield f"option {_LEVELS[level]} {number}: {values[0]} -> {values[1]}"


def _option_explained(
    level: int, number: int, before: Options, after: Options, case: Case, window: int
) -> bool:
    """TCP_MAXSEG is the size in use; TCP_WINDOW_CLAMP, unless the application has set it, the kernel's own."""
    a, b = _value(level, number, before), _value(level, number, after)
    if (level, number) == (6, 2):
        return _explained("snd_mss", a, b, case) or _halved(a, b, case, window)
    return (level, number) == (6, 10) and a != dict(case.options).get("TCP_WINDOW_CLAMP")


def _value(level: int, number: int, options: Options) -> Any:
    raw = options[level, number]
    if len(raw) != 4:
        return raw
    value = int.from_bytes(raw, "little", signed=True)
    # Whether the last packet that was sent was ECN-capable is not the application's part of these.
    return value & ~3 if (level, number) in ((0, 1), (41, 67)) else value


_SS = re.compile(r"\b(wscale|mss|pmtu|advmss|rcv_wnd|snd_wnd|fwmark|tos|class_id):(\S+)")
_SKMEM = re.compile(r"skmem:\(.*?rb(\d+).*?tb(\d+)")


def ss(namespace: Namespace, pair: Pair) -> Fields:
    """What ss says of our end: a judge that knows nothing of us. Empty where the socket is in no table."""
    ports = f"sport = :{pair.here_end[1]} and dport = :{pair.there_end[1]}"
    with namespace.entered():
        text = subprocess.run(
            ["ss", "-tainmOHe", *ports.split()], check=True, capture_output=True, text=True
        ).stdout
    if not text.strip():
        return {}
    found: Fields = dict(_SS.findall(text))
    found["state"], found["queues"] = text.split()[0], text.split()[1:3]
    found["skmem"] = _SKMEM.search(text).groups()  # type: ignore[union-attr]
    words = set(text.split())
    found["agreed"] = sorted(words & {"ts", "sack", "ecn", "usec_ts", "cubic", "reno", "bbr"})
    return found


def _pushed(before: Fields, after: Fields, case: Case) -> bool:
    """What was corked goes with the activation: the kernel's timer for it would be one of seconds."""
    queues = before.get("queues"), after.get("queues")
    if case.shape[2] != "unsent" or None in queues:
        return False
    (unread, waited), (still_unread, waits) = queues[0], queues[1]
    return unread == still_unread and waits == "0" and int(waited) <= CORKED_BYTES


def _halved(before: int, after: int, case: Case, window: int) -> bool:
    """What was corked and went with the activation was answered with a window larger than any before.

    A segment may be as large as half of the largest (tcp_ack_update_window(), tcp_bound_to_half_wnd()).
    """
    corked = case.send == "unsent" and not case.deaf
    return corked and before < after <= window // 2


def ss_kept(before: Fields, after: Fields, case: Case) -> Iterator[str]:
    pushed = {"queues", "snd_wnd"} if _pushed(before, after, case) else set()
    for name in sorted((before.keys() | after.keys()) - pushed):
        a, b = before.get(name), after.get(name)
        if name == "wscale" and {a, b} == {None, "0,0"}:
            continue
        told = {"mss": "snd_mss", "advmss": "advmss"}.get(name)  # which rebuilt() has seen
        if name == "mss" and a and b and _halved(int(a), int(b), case, int(after.get("snd_wnd", 0))):
            continue
        if a != b and not (told and a and b and _explained(told, int(a), int(b), case)):
            yield f"ss {name}: {before.get(name)} -> {after.get(name)}"


# --- the ICI of one pass and that of the next -----------------------------------------------------------


def ici_kept(before: Any, after: Any, case: Case, elapsed_s: float) -> Iterator[str]:
    """Both in the same state of affairs: between them the endpoint ran, and its peer may have answered a probe.

    Every field is compared. What may have moved: our clock and the peer's, forward; the window's edges,
    never back; from unsent to sent, what the window lets go; all numbers, where bytes went both ways.
    """
    old, new = _without_ecn(_flat(before)), _without_ecn(_flat(after))
    yield from _stamp(old, new, elapsed_s)
    yield from _windows(old, new, case)
    yield from _stream(old, new, case)
    skipped = _SEEN_ABOVE | {"congestion.cwnd"} | _CONGESTION
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if name in skipped or a == b or _explained(name.removeprefix("negotiated."), a, b, case):
            continue
        if not (case.talk and _moved_by_talk(name, a, b, case, (new["rcv_nxt"] - old["rcv_nxt"]) % 2**32)):
            yield f"ICI {name}: {short(a)} -> {short(b)}"


def _moved_by_talk(name: str, a: Any, b: Any, case: Case, read: int) -> bool:
    """What the kernel moves by itself where bytes go both ways.

    Buffers that the application has not chosen grow (tcp_sndbuf_expand(), tcp_rcv_space_adjust()), and the
    window's clamp with them; the peek offset goes back by what is read, to 0 (sk_peek_offset_bwd()).
    """
    if name == "options.SO_PEEK_OFF":
        return bool(b == max(0, a - read))
    chosen = {"options.SO_SNDBUF": case.sndbuf, "options.SO_RCVBUF": case.rcvbuf}
    return name == "options.TCP_WINDOW_CLAMP" or (not chosen.get(name, 1) and a < b)


_CONGESTION = {"congestion.ssthresh", "congestion.srtt_us", "congestion.rttvar_us"}
_SEEN_ABOVE = {
    "timestamp.value", "timestamp.ts_recent", "window.snd_wl1", "window.snd_wnd", "window.max_window",
    "window.rcv_wnd", "window.rcv_wup", "snd_nxt", "rcv_nxt", "send_queue.sent", "send_queue.unsent",
    "send_queue.fin_sent", "receive_queue.data", "options.TCP_QUICKACK",
}  # fmt: skip


def _flat(value: Any, prefix: str = "") -> Fields:
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if not isinstance(value, dict):
        return {prefix: value}
    found: Fields = {}
    for name, inner in value.items():
        found |= _flat(inner, f"{prefix}.{name}" if prefix else name)
    return found


def _without_ecn(fields: Fields) -> Fields:
    """Whether the last packet was ECN-capable is seen in these, and is not the application's part."""
    tos = {name: fields.pop(f"options.{name}", 0) & ~3 for name in ("IP_TOS", "IPV6_TCLASS")}
    return fields | tos


def _stamp(old: Fields, new: Fields, elapsed_s: float) -> Iterator[str]:
    if "timestamp.value" not in old or "timestamp.value" not in new:
        return
    per_second = 10**6 if old["timestamp.microseconds"] else 1000
    most = elapsed_s * per_second + 20 * per_second // 1000
    for name in ("timestamp.value", "timestamp.ts_recent"):
        a, b = old[name], new[name]
        if a is not None and (b is None or (b - a) % 2**32 > 2**31):
            yield f"ICI {name}: {a} -> {b}"
    if (new["timestamp.value"] - old["timestamp.value"]) % 2**32 > most:
        yield f"ICI timestamp.value: {old['timestamp.value']} -> {new['timestamp.value']} in {elapsed_s:.3f} s"


def _forward(old: int, new: int) -> bool:
    return (new - old) % 2**32 < 2**31


def _windows(old: Fields, new: Fields, case: Case) -> Iterator[str]:
    for which, base, size in (
        ("ours", "window.rcv_wup", "window.rcv_wnd"),
        ("the peer's", None, "window.snd_wnd"),
    ):
        yield from edge_kept(which, *((_una(f) if base is None else f[base]) + f[size] for f in (old, new)))
    # Sending a probe sets it to rcv_nxt - 1 (tcp_send_window_probe()), so that the answer's window counts.
    probed = new["window.snd_wl1"] == (new["rcv_nxt"] - 1) % 2**32
    if not (_forward(old["window.snd_wl1"], new["window.snd_wl1"]) or probed):
        yield f"ICI window.snd_wl1 went back: {old['window.snd_wl1']} -> {new['window.snd_wl1']}"
    if not _forward(old["window.rcv_wup"], new["window.rcv_wup"]):
        yield f"ICI window.rcv_wup went back: {old['window.rcv_wup']} -> {new['window.rcv_wup']}"
    if case.deaf and old["window.snd_wnd"] != new["window.snd_wnd"]:
        yield f"ICI window.snd_wnd: {old['window.snd_wnd']} -> {new['window.snd_wnd']}"
    if old["window.max_window"] > new["window.max_window"]:
        yield f"ICI window.max_window: {old['window.max_window']} -> {new['window.max_window']}"


def edge_kept(which: str, old: int, new: int) -> Iterator[str]:
    if not _forward(old, new):
        yield f"ICI edge of {which} window went back by {(old - new) % 2**32}"


def window_edge(sock: socket.socket) -> int:
    """Of our window, of a socket in use."""
    with repaired(sock):
        return sum(struct.unpack("=5I", sock.getsockopt(TCP, WINDOW, 20))[3:])


def _una(fields: Fields) -> int:
    return int(fields["snd_nxt"]) - len(fields["send_queue.sent"]) - fields["send_queue.fin_sent"]


def _pushed_since(old: Fields, new: Fields, case: Case) -> bool:
    """As :func:`_pushed`, between two passes: what was corked has arrived, all of it.

    It may have been passed as sent in between, for the peer may delay its acknowledgement by 40 ms.
    """
    waited = len(old["send_queue.sent"]) + len(old["send_queue.unsent"])
    gone = not (new["send_queue.sent"] or new["send_queue.unsent"])
    arrived = (_una(new) - _una(old)) % 2**32 == waited
    return case.send == "unsent" and not case.deaf and 0 < waited <= CORKED_BYTES and gone and arrived


def _stream(old: Fields, new: Fields, case: Case) -> Iterator[str]:
    if case.talk:
        return
    yield from _unmoved(old, new, "rcv_nxt", ("receive_queue.data",), (old["rcv_nxt"], new["rcv_nxt"]))
    if not _pushed_since(old, new, case):
        queue = ("send_queue.sent", "send_queue.unsent")
        yield from _unmoved(old, new, "snd_una", queue, (_una(old) % 2**32, _una(new) % 2**32))
    if not _forward(old["snd_nxt"], new["snd_nxt"]):
        yield f"ICI snd_nxt went back: {old['snd_nxt']} -> {new['snd_nxt']}"


def _unmoved(
    old: Fields, new: Fields, what: str, queue: tuple[str, ...], numbers: tuple[int, int]
) -> Iterator[str]:
    """Neither the number of a stream's first or last byte, nor the bytes of its queue."""
    if numbers[0] != numbers[1]:
        yield f"ICI {what}: {numbers[0]} -> {numbers[1]}"
    a, b = (b"".join(fields[name] for name in queue) for fields in (old, new))
    if a != b:
        yield f"ICI {queue}: {short(a)} -> {short(b)}, or other bytes"


# --- the hosts' counters --------------------------------------------------------------------------------

#: Must be 0 on both hosts, whatever the case.
NEVER = (
    "OutRsts", "EstabResets", "PAWSActive", "PAWSEstab", "PAWSOldAck", "InCsumErrors", "InErrs",
    "TCPAbortOnData", "TCPAbortOnClose", "TCPAbortOnMemory", "TCPAbortOnTimeout", "TCPAbortFailed",
    "TCPBacklogDrop", "TSEcrRejected",
)  # fmt: skip
#: What has to do with the room there is to receive; the peer's is its own affair.
ROOM = ("BeyondWindow", "TCPRcvQDrop", "RcvPruned")


def counters(namespace: Namespace) -> dict[str, int]:
    """The kernel's TCP counters of a host."""
    found = {}
    with namespace.entered():
        for name in ("snmp", "netstat"):
            rows = [line.split() for line in Path(f"/proc/thread-self/net/{name}").read_text().splitlines()]
            for heads, values in zip(rows[::2], rows[1::2], strict=True):
                if heads[0] in ("Tcp:", "TcpExt:"):
                    found |= dict(zip(heads[1:], map(int, values[1:]), strict=True))
    return found


def counted(
    before: Mapping[str, int], after: Mapping[str, int], who: str, released: int, late: int
) -> Iterator[str]:
    """:param released: endpoints released there: each counts as reset, though nothing was sent, and the one that
        was made of it is woken by an octet beyond its window.
    :param late: resets that were sent after the connection had ended in both directions.
    """
    for name in NEVER + (ROOM if who == "here" else ()):
        most = {"EstabResets": released, "BeyondWindow": released, "OutRsts": late}.get(name, 0)
        if name in after and after[name] - before[name] > most:
            yield f"counter {name} of {who}: +{after[name] - before[name]}"


_OF_ROOM = re.compile(
    r"its window's right edge went back by \d+, the field is 0\b|ICI edge of ours window went back"
    r"|the peer sent \d+ segments again|counter (BeyondWindow|TCPRcvQDrop|RcvPruned) of here"
)


def but_for_room(wrong: Sequence[str], case: Case) -> list[str]:
    """Without what comes of a receive buffer that is full before its window, where connect() is the cause.

    In repair mode it counts timestamps wherever net.ipv4.tcp_timestamps is on (tcp_connect_init()): those that
    are not agreed too, and those that are a second time, for the size that we have announced is without them by
    then. So its guess is up to 12 bytes less than after a handshake, and a full segment, which was as large as
    the guess, is measured as a larger one: from then on, all of a buffer's memory is content to the kernel, half
    of it before (tcp_measure_rcv_mss()). So it does not join what waits (tcp_collapse()), drops what was promised
    room (tcp_data_queue(): TCPRcvQDrop), and says that the window is 0 (tcp_select_window()). No call mends that:
    test_guess_of_segments.py. The buffer's size, the window, its clamp and the guess are compared all the same.
    """
    if _small_segments_fill_the_peer(case):
        wrong = [one for one in wrong if "counter TCPBacklogDrop of there" not in one]
    dropped = any("counter TCPRcvQDrop of here" in one for one in wrong)
    if dropped and (_guess_is_lower(case) or _we_promise_too_much(case) or _peer_promises_too_much(case)):
        return [one for one in wrong if not _OF_ROOM.search(one)]
    return list(wrong)


def _small_segments_fill_the_peer(case: Case) -> bool:
    """Whether a window full of segments takes more of the peer's memory than its buffer and backlog have.

    The window opens while the peer reads, so all of them come to its backlog at once, a buffer each, and the last
    are dropped (tcp_add_backlog()). How many may wait in a device goes by our pace (tcp_small_queue_check()), which
    the kernel reckons at each acknowledgement of data: until the first after a pass it is that of ten segments in
    a round trip. With net.ipv4.tcp_limit_output_bytes as low as that, as much is dropped without passing.
    """
    return case.send == "unsent" and 0 < case.mss[0] < 100 and bool(case.there_rcvbuf)


def _we_promise_too_much(case: Case) -> bool:
    """Whether the unit in which we tell our window is larger than what our buffer is meant to hold.

    We tell one unit while there is room for a segment as large as the guess (net/ipv4/tcp_output.c
    __tcp_select_window()), and drop what the peer sends of that. Without passing the guess grows with what has
    arrived; an endpoint to which nothing large has come drops as much.
    """
    return 1 << case.wscale[0] > (case.rcvbuf or 1 << 30)


def _peer_promises_too_much(case: Case) -> bool:
    """Whether the unit in which the peer tells its window is larger than its buffer, of the same host as ours.

    It tells one unit while it has any room, and drops what we send of that. Without passing a timer has run out
    meanwhile, and we send one segment at a time.
    """
    return case.over == "lo" and 1 << case.wscale[1] > 2 * (case.there_rcvbuf or 1 << 30)


def _guess_is_lower(case: Case) -> bool:
    """Whether a full segment of the peer is no larger than the first guess of it, and larger than connect()'s.

    Without passing one that is larger than 536 bytes is measured too. In repair mode a side knows nothing of
    what the other has announced when it guesses.
    """
    shook = case.made == "handshake"
    ours, peers, stamps = announced(case, 0), announced(case, 1), 12 * bool(case.stamps)
    full = (min(ours, peers) if shook else ours) - stamps
    said = ours - stamps * shook  # as TCP_INFO has it
    guess = min(said - 12 * (not case.elsewhere), peers - stamps)
    return max(88, guess) < full <= 536
