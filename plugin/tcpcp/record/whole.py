"""Whether an ICI that a program has put together has what belongs there: a field may be None, or of another kind.

One from :func:`tcpcp.get` or :func:`tcpcp.loads` always has. What the values mean is the business of
:mod:`tcpcp.record.checks`, which takes their kinds for granted.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address

from tcpcp.errors import IciError, WrongArgument
from tcpcp.record.ici import Ici, State, Timestamp

_Kinds = tuple[type, ...]
_IP, _FLAG, _BYTES = (IPv4Address, IPv6Address), (bool, int), (bytes, bytearray, memoryview)
_NUMBERS = """local.port peer.port snd_nxt rcv_nxt negotiated.snd_wscale negotiated.rcv_wscale negotiated.mss_clamp
    negotiated.advmss window.snd_wl1 window.snd_wnd window.max_window window.rcv_wnd window.rcv_wup congestion.cwnd
    congestion.ssthresh congestion.srtt_us congestion.rttvar_us version tag"""
_FLAGS = """ipv6_socket negotiated.timestamps negotiated.sack negotiated.window_scaling negotiated.ecn
    send_queue.fin send_queue.fin_sent receive_queue.fin receive_queue.shut"""
_FIELDS: dict[str, _Kinds] = {
    "state": (State,),
    "local.ip": _IP,
    "peer.ip": _IP,
    "device": (str,),
    "congestion.algorithm": (str,),
    "options": (dict,),
    "timestamp": (Timestamp, type(None)),
    **dict.fromkeys(_NUMBERS.split(), (int,)),
    **dict.fromkeys(_FLAGS.split(), _FLAG),
    **dict.fromkeys(("send_queue.sent", "send_queue.unsent", "receive_queue.data", "socket_filter"), _BYTES),
}
_OF_TIMESTAMP: dict[str, _Kinds] = {
    "timestamp.value": (int,),
    "timestamp.microseconds": _FLAG,
    "timestamp.ts_recent": (int, type(None)),
}
_all_of, _stamp_of = operator.attrgetter(*_FIELDS), operator.attrgetter(*_OF_TIMESTAMP)
#: Kinds of all fields that were found right: few in a process, so that they are looked at one by one but once.
_right: set[_Kinds] = set()


def require(icis: Sequence[Ici]) -> None:
    """Refuse *icis* of which a part is missing or of another kind; 5 us for each.

    :raises IciError: everything of that sort. :raises WrongArgument: one is no ICI at all.
    """
    for one in icis:
        if not isinstance(one, Ici):
            raise WrongArgument(f"not an Ici but {type(one).__name__}: loads() makes one of an image")
    if found := [f"{ici}: {problem}" for ici in icis for problem in problems(ici)]:
        raise IciError(found)


def problems(ici: Ici) -> list[str]:
    """What is missing or of another kind, each a sentence without the connection's name; empty: nothing."""
    try:
        kinds = tuple(map(type, _all_of(ici)))
        if ici.timestamp is not None:
            kinds += tuple(map(type, _stamp_of(ici)))
        kinds += (*set(map(type, ici.options)), *set(map(type, ici.options.values())))
    except (AttributeError, TypeError):
        return list(_looked_at(ici))
    if kinds not in _right:
        if found := list(_looked_at(ici)):
            return found
        _right.add(kinds)
    return []


def _looked_at(ici: Ici) -> Iterator[str]:
    yield from _each(ici, _FIELDS)
    if isinstance(ici.timestamp, Timestamp):
        yield from _each(ici, _OF_TIMESTAMP)
    if isinstance(ici.options, dict):
        for name, value in ici.options.items():
            if not isinstance(name, str) or not isinstance(value, int):
                yield f"options have {value!r} as {name!r}, must be a number by name"


def _each(ici: Ici, fields: dict[str, _Kinds]) -> Iterator[str]:
    for path, kinds in fields.items():
        try:
            value = operator.attrgetter(path)(ici)
        except AttributeError:
            yield f"{path} is missing"
            continue
        if not isinstance(value, kinds):
            names = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
            yield f"{path} is {type(value).__name__}, must be {names}"
