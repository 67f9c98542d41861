"""Sizes for people, in one way everywhere. Pure."""

from __future__ import annotations


def size(count_bytes: int) -> str:
    """Return a size for people, e.g. ``1.5 GB``: of 1000 bytes each, as disks and networks are sold."""
    amount = float(count_bytes)
    for unit in ("bytes", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
