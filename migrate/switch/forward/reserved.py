"""Local ports that no new connection of this host gets, since one that was moved away still has them.

The kernel does not know that the two ends of such a connection are in use: of a new one with the same ends the
answers would be sent on.

Source: Documentation/networking/ip-sysctl.rst ip_local_reserved_ports; it holds for both IP versions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from migrate import number_list

_SETTING = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")


def missing(ports: Iterable[int]) -> list[int]:
    """Those of *ports* that are not reserved."""
    return sorted({*ports} - _read())


def add(ports: Collection[int]) -> None:
    """Reserve them. :raises OSError: the kernel refuses."""
    if ports:
        _write(_read() | {*ports})


def remove(ports: Collection[int]) -> None:
    """Reserve them no longer; those that are not reserved are no error. :raises OSError: the kernel refuses."""
    before = _read()
    if not before.isdisjoint(ports):
        _write(before - {*ports})


def _read() -> set[int]:
    return number_list.parse(_SETTING.read_text())


def _write(ports: set[int]) -> None:
    pieces: list[list[int]] = []
    for port in sorted(ports):
        if pieces and pieces[-1][1] == port - 1:
            pieces[-1][1] = port
        else:
            pieces.append([port, port])
    _SETTING.write_text(",".join(f"{first}-{last}" for first, last in pieces) + "\n")
