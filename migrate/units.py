"""Sizes and durations as people read them. Pure."""

from __future__ import annotations

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
