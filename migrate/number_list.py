"""Lists of numbers as the kernel writes them into files of /proc and /sys, e.g. ``0-3,8``. Pure."""

from __future__ import annotations


def parse(text: str) -> set[int]:
    """Those in *text*. :raises ValueError: it is no such list."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found.update(range(int(first), int(last or first) + 1))
    return found
