"""What was heard of address spaces, in memory that two processes share: if one dies the other knows as much.

The kernel lets a process go on as soon as its event is read, so between the reading and the noting there must be
nothing: the read itself puts it here. An entry counts if the event in it is one to be noted; of a fault, which is
not, the place is used again.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

from migrate.memory.userfault import FAULT, MESSAGE_BYTES, Event, parse

_SPACE = struct.Struct("=II")
_ENTRY_BYTES = _SPACE.size + MESSAGE_BYTES
#: So many events until another one is needed.
ENTRIES = 1 << 14


class Heard:
    """The events of all address spaces since it was made, in their order. Shared with whom we fork."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, ENTRIES * _ENTRY_BYTES)
        # All there from the start: whatever happens to us, the kernel can write what it has told.
        self._memory.write(bytes(len(self._memory)))
        self._view = memoryview(self._memory)
        self._next = 0

    @property
    def full(self) -> bool:
        """Whether there is no room for another event."""
        return self._next == ENTRIES

    def read(self, space: int, settled: bool, descriptor: int) -> Event | None:
        """Read the next event of an address space; None: there is none.

        :param space: its number. :param settled: whether all that was told before is (:meth:`Missing.settled`).
        :raises OSError: the descriptor cannot be read.
        """
        at = self._next * _ENTRY_BYTES
        _SPACE.pack_into(self._memory, at, space, settled)
        place = self._view[at + _SPACE.size : at + _ENTRY_BYTES]
        try:
            if os.readv(descriptor, [place]) != MESSAGE_BYTES:
                return None
        except BlockingIOError:
            return None
        event = parse(bytes(place))
        if event.kind != FAULT:
            self._next += 1
        return event

    def all(self) -> Iterator[tuple[int, bool, Event]]:
        """Number of the address space, whether it was settled before, and event, of all that were noted."""
        for at in range(0, ENTRIES * _ENTRY_BYTES, _ENTRY_BYTES):
            event = parse(self._memory[at + _SPACE.size : at + _ENTRY_BYTES])
            if event.kind in (0, FAULT):
                return
            space, settled = _SPACE.unpack_from(self._memory, at)
            yield space, bool(settled), event
