"""The tables of System V objects in /proc/sysvipc: those of the IPC namespace of the thread that reads them."""

from __future__ import annotations

from pathlib import Path

_TABLES = Path("/proc/sysvipc")


def rows(name: str) -> list[dict[str, int]]:
    """The rows of a table; none where the kernel has no System V IPC. Source: man sysvipc(7)."""
    try:
        return parse((_TABLES / name).read_text())
    except FileNotFoundError:
        return []


def parse(content: str) -> list[dict[str, int]]:
    """The rows by the names in the first line.

    :raises ValueError: it is another text.
    """
    names, *rows = content.split("\n")
    return [dict(zip(names.split(), map(int, row.split()), strict=True)) for row in rows if row]
