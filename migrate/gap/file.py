"""Packets that were sent on to the destination, in a file beside the journal, for the case that the process stays.

Who undoes here is perhaps not the driver; whoever it is gives them to this host's own stack
(:mod:`migrate.recovery.way_back`). Each is a length (4 bytes, big-endian) and an IP packet. The first ones
count: a receiver can use the beginning of a stream without the rest. So a file that is full takes no more,
and one that ends in the middle of a packet ends before it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path

#: Of memory: the file lies in /run.
MOST_BYTES = 32 << 20
_LENGTH = struct.Struct("!I")


def _path(directory: Path) -> Path:
    return directory / "gap"


class GapFile:
    """That of the migration whose journal is in *directory*. Nothing is made before the first packet.

    Nothing here raises: what cannot be kept is sent again by the peers, later.
    """

    def __init__(self, directory: Path) -> None:
        self._path = _path(directory)
        self._room = MOST_BYTES

    def add(self, packets: Iterable[bytes]) -> None:
        """Keep *packets* behind those that were kept before."""
        data = b"".join(_LENGTH.pack(len(packet)) + packet for packet in packets)
        if len(data) > self._room:
            self._room = 0  # not those behind them either
            return
        self._room -= len(data)
        try:
            written = _append(self._path, data)
        except OSError:
            written = 0
        if written != len(data):
            self._room = 0


def _append(path: Path, data: bytes) -> int:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return os.write(descriptor, data)
    finally:
        os.close(descriptor)


def read(directory: Path) -> list[bytes]:
    """What was kept beside the journal in *directory*, oldest first; nothing if it cannot be read."""
    try:
        data = _path(directory).read_bytes()
    except OSError:
        return []
    found, at = [], 0
    while at + _LENGTH.size <= len(data):
        begin = at + _LENGTH.size
        at = begin + _LENGTH.unpack_from(data, at)[0]
        if at <= len(data):
            found.append(data[begin:at])
    return found
