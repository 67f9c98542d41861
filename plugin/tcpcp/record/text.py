"""An ICI for people and for scripts: what `tcpcp show` prints. Queues are named by length and hash only."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

from tcpcp.record.ici import FIN_ACKED, Ici, ReceiveQueue

#: Hexadecimal digits of the SHA-256 of a queue: enough to see that two hosts have the same bytes.
HASH_DIGITS = 16


def as_json(ici: Ici) -> dict[str, Any]:
    """*ici* as what :func:`json.dumps` takes: the names of the fields, states by name, derived values too."""
    fields = {field.name: getattr(ici, field.name) for field in dataclasses.fields(ici)}
    fields["state"] = ici.state.name
    fields["options"] = dict(sorted(ici.options.items()))
    for name in ("local", "peer"):
        endpoint = getattr(ici, name)
        fields[name] = {"ip": str(endpoint.ip), "port": endpoint.port}
    for name in ("negotiated", "window", "congestion", "timestamp"):
        fields[name] = dataclasses.asdict(fields[name]) if fields[name] is not None else None
    fields["send_queue"] = {
        "sent": _queue(ici.send_queue.sent),
        "unsent": _queue(ici.send_queue.unsent),
        "fin": ici.send_queue.fin,
        "fin_sent": ici.send_queue.fin_sent,
    }
    fields["receive_queue"] = {
        "data": _queue(ici.receive_queue.data),
        "fin": ici.receive_queue.fin,
        "shut": ici.receive_queue.shut,
    }
    fields["socket_filter"] = ici.socket_filter.hex()
    fields["derived"] = {
        "snd_una": ici.snd_una,
        "write_seq": ici.write_seq,
        "copied_seq": ici.copied_seq,
    }
    return fields


def as_text(ici: Ici) -> str:
    """*ici* as a few lines of text, without a line end after the last."""
    fixed, window, path = ici.negotiated, ici.window, ici.congestion
    lines = [
        ("negotiated", _negotiated(ici)),
        ("mss", f"mss_clamp {fixed.mss_clamp}  advmss {fixed.advmss}  (bytes)"),
        ("sequence", f"snd_una {ici.snd_una}  snd_nxt {ici.snd_nxt}  write_seq {ici.write_seq}"),
        ("", f"copied_seq {ici.copied_seq}  rcv_nxt {ici.rcv_nxt}"),
        ("send window", f"snd_wnd {window.snd_wnd}  max_window {window.max_window}  (bytes)"),
        ("", f"snd_wl1 {window.snd_wl1}"),
        ("recv window", f"rcv_wnd {window.rcv_wnd}  (bytes)  rcv_wup {window.rcv_wup}"),
        ("timestamp", _timestamp(ici)),
        ("congestion", f"{path.algorithm}  cwnd {path.cwnd}  ssthresh {path.ssthresh}  (segments)"),
        ("", f"srtt {path.srtt_us / 1000:.3f} ms  rttvar {path.rttvar_us / 1000:.3f} ms"),
        ("sent", _bytes(ici.send_queue.sent, ici.send_queue.fin_sent)),
        ("unsent", _bytes(ici.send_queue.unsent, _fin_unsent(ici))),
        ("unread", _unread(ici.receive_queue)),
        ("options", _options(ici)),
    ]
    if ici.socket_filter:
        lines.append(("filter", f"{len(ici.socket_filter) // 8} instructions"))
    return "\n".join(map(_clean, [_headline(ici), *(f"  {name:<12}{text}" for name, text in lines)]))


def file_name(name: str) -> str:
    """*name* as it is, without what could steer a terminal: who made the file chose it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def _clean(line: str) -> str:
    """*line* in ASCII, without what could steer a terminal: an image and its texts may come from anywhere."""
    if line.isascii() and line.isprintable():
        return line
    return "".join(c if c.isascii() and c.isprintable() else ascii(c)[1:-1] for c in line)


def _headline(ici: Ici) -> str:
    parts = [str(ici), ici.state.name]
    if ici.ipv6_socket and ici.local.ip.version == 4:
        parts.append("IPv4-mapped")
    if ici.device:
        parts.append(f"on {ici.device}")
    if ici.tag:
        parts.append(f"tag {ici.tag}")
    return "  ".join(parts)


def _negotiated(ici: Ici) -> str:
    fixed = ici.negotiated
    named = {"timestamps": fixed.timestamps, "SACK": fixed.sack, "ECN": fixed.ecn}
    words = [name for name, chosen in named.items() if chosen]
    if fixed.window_scaling:
        words.append(f"window scaling (snd_wscale {fixed.snd_wscale}, rcv_wscale {fixed.rcv_wscale})")
    return ", ".join(words) or "nothing"


def _timestamp(ici: Ici) -> str:
    if ici.timestamp is None:
        return "none"
    unit = "us" if ici.timestamp.microseconds else "ms"
    recent = "not known" if ici.timestamp.ts_recent is None else str(ici.timestamp.ts_recent)
    return f"value {ici.timestamp.value}  (a tick is 1 {unit})  ts_recent {recent}"


def _options(ici: Ici) -> str:
    return "  ".join(f"{name} {value}" for name, value in sorted(ici.options.items())) or "defaults"


def _fin_unsent(ici: Ici) -> bool:
    """Whether a FIN waits behind the unsent bytes; in some states it has been acknowledged."""
    return ici.send_queue.fin and not ici.send_queue.fin_sent and ici.state not in FIN_ACKED


def _bytes(data: bytes, fin: bool) -> str:
    text = f"{len(data)} byte{'s' * (len(data) != 1)}" + (f"  sha256 {_hash(data)}" if data else "")
    return f"{text}  + FIN" if fin else text


def _unread(queue: ReceiveQueue) -> str:
    return _bytes(queue.data, queue.fin) + "  shut by the application" * queue.shut


def _queue(data: bytes) -> dict[str, Any]:
    return {"length_bytes": len(data), "sha256": _hash(data)}


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:HASH_DIGITS]
