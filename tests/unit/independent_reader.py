"""Reads ICI images by images/README.md alone: no protobuf, nothing of tcpcp, no byte order of this machine.

Whoever reads images in another language can start from here. A record becomes a dict with the names of the
README; absent numbers are 0, absent parts None.
"""

from __future__ import annotations

import ipaddress
import zlib
from typing import Any

MAGIC = bytes.fromhex("8949 4349 0D0A 1A0A")
STATES = (
    *("", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"),
    *("CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING"),
)
#: Field number -> name and kind, from the tables of section 2.
ENDPOINT = {1: ("ip", "bytes"), 2: ("port", "number")}
NEGOTIATED = {
    1: ("timestamps", "bool"),
    2: ("sack", "bool"),
    3: ("window_scaling", "bool"),
    4: ("ecn", "bool"),
    5: ("snd_wscale", "number"),
    6: ("rcv_wscale", "number"),
    7: ("mss_clamp", "number"),
    8: ("advmss", "number"),
}
WINDOW = {
    number: (name, "number")
    for number, name in enumerate(("snd_wl1", "snd_wnd", "max_window", "rcv_wnd", "rcv_wup"), 1)
}
TIMESTAMP = {1: ("value", "number"), 2: ("microseconds", "bool"), 3: ("ts_recent", "optional")}
CONGESTION = {1: ("algorithm", "text")} | {
    number: (name, "number") for number, name in enumerate(("cwnd", "ssthresh", "srtt_us", "rttvar_us"), 2)
}
SEND_QUEUE = {
    1: ("sent", "bytes"),
    2: ("unsent", "bytes"),
    3: ("fin", "bool"),
    4: ("fin_sent", "bool"),
}
RECEIVE_QUEUE = {1: ("data", "bytes"), 2: ("fin", "bool"), 3: ("shut", "bool")}
OPTION = {1: ("name", "text"), 2: ("value", "zigzag")}
ICI = {
    1: ("version", "number"),
    2: ("tag", "number"),
    3: ("state", "number"),
    4: ("local", ENDPOINT),
    5: ("peer", ENDPOINT),
    6: ("ipv6_socket", "bool"),
    7: ("device", "text"),
    8: ("negotiated", NEGOTIATED),
    9: ("snd_nxt", "fixed32"),
    10: ("rcv_nxt", "fixed32"),
    11: ("window", WINDOW),
    12: ("timestamp", TIMESTAMP),
    13: ("congestion", CONGESTION),
    14: ("send_queue", SEND_QUEUE),
    15: ("receive_queue", RECEIVE_QUEUE),
    16: ("options", "options"),
    17: ("socket_filter", "bytes"),
}
ABSENT = {"number": 0, "bool": False, "fixed32": 0, "bytes": b"", "text": "", "zigzag": 0}
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

Fields = dict[int, tuple[str, Any]]


def read(image: bytes) -> list[dict[str, Any]]:
    """Every record of *image*, section 1."""
    found = []
    while image:
        assert image[:8] == MAGIC
        version, reserved = number(image[8:10]), number(image[10:12])
        length, crc = number(image[12:16]), number(image[16:20])
        message, rest = image[20 : 20 + length], image[20 + length :]
        assert (version, reserved, len(message)) == (3, 0, length)
        assert crc == zlib.crc32(image[8:16] + message)
        found.append(ici(message))
        image = rest
    return found


def number(octets: bytes) -> int:
    """Octets, the most significant first."""
    value = 0
    for octet in octets:
        value = value * 256 + octet
    return value


def ici(message: bytes) -> dict[str, Any]:
    """An Ici as section 2 describes it, with what is derived."""
    found = parse(message, ICI)
    found["state"] = STATES[found["state"]]
    for end in ("local", "peer"):
        found[end]["ip"] = str(ipaddress.ip_address(found[end]["ip"]))
    send, receive = found["send_queue"], found["receive_queue"]
    fin_sent, fin_received = int(send["fin_sent"]), int(receive["fin"])
    found["snd_una"] = (found["snd_nxt"] - len(send["sent"]) - fin_sent) % 2**32
    found["write_seq"] = (found["snd_nxt"] + len(send["unsent"]) - fin_sent) % 2**32
    found["copied_seq"] = (found["rcv_nxt"] - len(receive["data"]) - fin_received) % 2**32
    return found


def parse(message: bytes, fields: Fields) -> dict[str, Any]:
    """A protobuf message: keys and values (protobuf's encoding guide)."""
    found: dict[str, Any] = {name: empty(kind) for name, kind in fields.values()}
    place = 0
    while place < len(message):
        key, place = varint(message, place)
        name, kind = fields[key >> 3]
        wire = key & 7
        if wire == VARINT:
            raw, place = varint(message, place)
            found[name] = plain(kind, raw)
        elif wire == FIXED32:
            # Protobuf's own order: the least significant octet first.
            found[name], place = number(message[place : place + 4][::-1]), place + 4
        else:
            assert wire == LENGTH
            length, place = varint(message, place)
            inside, place = message[place : place + length], place + length
            put(found, name, kind, inside)
    return found


def put(found: dict[str, Any], name: str, kind: Any, inside: bytes) -> None:
    """A value with a length."""
    if kind == "options":
        option = parse(inside, OPTION)
        found[name][option["name"]] = option["value"]
    elif isinstance(kind, dict):
        found[name] = parse(inside, kind)
    else:
        found[name] = inside.decode() if kind == "text" else inside


def empty(kind: Any) -> Any:
    """What a field is when it is not there."""
    if kind == "options":
        return {}
    return ABSENT.get(kind) if isinstance(kind, str) else None


def varint(message: bytes, place: int) -> tuple[int, int]:
    """A number in groups of 7 bits, the least significant first, and where it ends."""
    value = shift = 0
    while True:
        octet = message[place]
        value |= (octet & 127) << shift
        place, shift = place + 1, shift + 7
        if octet < 128:
            return value, place


def plain(kind: Any, raw: int) -> Any:
    """What a varint stands for."""
    if kind == "bool":
        return bool(raw)
    return (raw >> 1) ^ -(raw & 1) if kind == "zigzag" else raw
