"""Sizes, durations and times as people read them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def size(count_bytes: int) -> str:
    """A number of bytes, e.g. "12.3 MiB"."""
    value, unit = float(count_bytes), ""
    for larger in _UNITS:
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f} {unit}" if unit else f"{count_bytes} byte{'' if count_bytes == 1 else 's'}"


def duration(ms: float) -> str:
    """A time in ms, e.g. "17.2 ms" or "3.4 s"."""
    return f"{ms:.1f} ms" if ms < 10_000 else f"{ms / 1000:.1f} s"


def utc(time_ns: int) -> str:
    """A time since the epoch, with microseconds, e.g. "2026-11-26T06:42:44.123456Z"."""
    seconds, rest_ns = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns // 1000:06d}Z"
