"""Mappings so large that CRIU cannot build them: it counts the pages of a private one in 31 bits.

Programs built with AddressSanitizer have one (its shadow memory), of which they touch little.
Source: criu/mem.c premap_private_vma().
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterable, Iterator

from migrate.inventory import proc
from migrate.pb.session_pb2 import Obstacle

_LEAST_BYTES = mmap.PAGESIZE << 31


def obstacles(pids: Iterable[int]) -> Iterator[Obstacle]:
    """Yield one for each of *pids* that has such a mapping; nothing of those that have ended."""
    for pid in pids:
        with contextlib.suppress(proc.Gone):
            size = largest(proc.text(pid, "maps"))
            if size >= _LEAST_BYTES:
                yield Obstacle(code="mapping-sparse", pid=pid, size_bytes=size)


def largest(maps: str) -> int:
    """Bytes of the largest mapping that is private and can be written, in the content of /proc/PID/maps."""
    fields = (line.split(" ", 2) for line in maps.split("\n") if line)
    return max((_size(addresses) for addresses, mode, _ in fields if "w" in mode and "p" in mode), default=0)


def _size(addresses: str) -> int:
    first, _, end = addresses.partition("-")
    return int(end, 16) - int(first, 16)
