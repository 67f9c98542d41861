"""Fills in the missing pages of address spaces while their processes run: first what somebody waits for.

Everything is done by one thread, one step after the other. What a process does to its mappings is heard before
anything is filled in of it: as long as it was not, the kernel refuses to (EAGAIN).
"""

from __future__ import annotations

import errno
import select
from dataclasses import dataclass, field

from migrate.memory import userfault
from migrate.memory.heard import Heard
from migrate.memory.missing import Missing, Piece
from migrate.memory.pagemap import PAGE_BYTES
from migrate.memory.userfault import Event

#: Filled in at once, so how long somebody else waits: some 40 us, some 700 where the host gets its memory from a
#: hypervisor first.
CHUNK_BYTES = 256 << 10
#: Filled in beside the page that somebody waits for.
AROUND_BYTES = 64 << 10
_PAUSE_MS = 1


@dataclass(slots=True)
class Space:
    """One address space.

    :ivar waiting: pages that somebody waits for, and that could not be filled in yet.
    :ivar settled: since its last event something was filled in.
    """

    descriptor: int
    missing: Missing
    waiting: set[int] = field(default_factory=set)
    settled: bool = False
    ended: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing is missing, or nobody is left who could miss it."""
        return self.ended or not (self.missing or self.waiting)


class FillingIn:
    """The address spaces of a tree.

    :ivar spaces: all of them, also those that have ended: an event names one by its place here.
    :ivar heard: what they have told since the last :meth:`hear_into`.
    :ivar filled_bytes: how much was filled in by us. :ivar waited_for: how often somebody waited for a page.
    """

    def __init__(self) -> None:
        self.spaces: list[Space] = []
        self.heard = Heard()
        self.filled_bytes = self.waited_for = 0

    @property
    def done(self) -> bool:
        """Whether all is filled in."""
        return all(one.done for one in self.spaces)

    def add(self, descriptor: int, missing: Missing) -> None:
        """Another address space; the descriptor, which does not block, is kept open until :meth:`close`."""
        self.spaces.append(Space(descriptor, missing))

    def descriptors(self) -> list[int]:
        """What is to be polled: where one can be read somebody waits for :meth:`serve`."""
        return [one.descriptor for one in self.spaces if not one.ended]

    def hear_into(self, heard: Heard) -> None:
        """Note in another place from now on: whoever shares it knows all that was noted before."""
        self.heard = heard

    def hear_again(self) -> None:
        """We have been in the place of a process that has died since: do what it has heard."""
        for number, settled, event in self.heard.all():
            if settled:
                self.spaces[number].missing.settled()
            self._note(self.spaces[number], event)
        self.heard = Heard()
        for space in self.spaces:
            userfault.wake_all(space.descriptor)  # whom it knew of asks again

    def serve(self) -> None:
        """Hear all that there is to be heard, and fill in what somebody waits for."""
        for number, space in enumerate(self.spaces):
            while not (space.ended or self.heard.full) and (event := self._read(number, space)):
                if event.kind == userfault.FAULT:
                    self.waited_for += 1
                    space.waiting.add(event.second // PAGE_BYTES * PAGE_BYTES)
                else:
                    self._note(space, event)
            for page in sorted(space.waiting):
                if self._give(space, page):
                    space.waiting.discard(page)

    def step(self) -> None:
        """Fill in a little of what nobody waits for."""
        space = next((one for one in self.spaces if not one.done), None)
        if space is None:
            return
        if not space.missing or not self._fill(space, space.missing.last(CHUNK_BYTES)):
            poll = select.poll()  # it cannot go on before something is heard
            for descriptor in self.descriptors():
                poll.register(descriptor, select.POLLIN)
            poll.poll(_PAUSE_MS)

    def _read(self, number: int, space: Space) -> Event | None:
        return self.heard.read(number, space.settled, space.descriptor)

    def _note(self, space: Space, event: Event) -> None:
        """Do as the process has done."""
        space.settled = False
        kind, first, second, third = event
        if kind == userfault.FORK:
            self.add(first, space.missing.forked())
        elif kind == userfault.REMAP:
            space.missing.remapped(first, second, third)
        elif kind == userfault.REMOVE:
            space.missing.forget(first, second)
        elif kind == userfault.UNMAP:
            for one in space.missing.unmapped(first, second):
                self._fill_all(space, one.start, one.end)

    def _give(self, space: Space, page: int) -> bool:
        """Fill in a page that somebody waits for, and some behind it; whether that is settled."""
        piece = space.missing.at(page, AROUND_BYTES)
        if piece is not None:
            return self._fill(space, piece)
        number = userfault.zero(space.descriptor, page)
        if number in (errno.EEXIST, errno.ENOENT, errno.EINVAL):
            userfault.wake(space.descriptor, page, PAGE_BYTES)
        return self._settled(space, number)

    def _fill_all(self, space: Space, start: int, end: int) -> None:
        """Fill in what is missing of these bytes; what cannot be is not missing any more."""
        while start < end and not space.ended:
            piece = space.missing.at(start, end - start)
            if piece is None:
                start += PAGE_BYTES
            elif not self._fill(space, piece):
                return  # there is more to be heard first

    def _fill(self, space: Space, piece: Piece) -> bool:
        """Fill in *piece*, or some of it from its beginning on; False: something is to be waited for first."""
        start, end, source, _ = piece
        done, number = userfault.copy(space.descriptor, start, source, end - start)
        self.filled_bytes += done
        if done or number in (0, errno.EEXIST):
            space.missing.settled()
            space.settled = True
        space.missing.forget(start, start + done)
        if done or not number:
            return True
        if number in (errno.ENOENT, errno.EINVAL) and end - start > PAGE_BYTES:
            # It begins in one mapping and ends in another.
            half = (end - start) // PAGE_BYTES // 2 * PAGE_BYTES
            return self._fill(space, piece.part(start, start + half))
        if number in (errno.ENOENT, errno.EINVAL) and not userfault.all_is_told(space.descriptor):
            return False
        if number in (errno.EEXIST, errno.ENOENT, errno.EINVAL):
            # It is there already, or nothing is mapped there that we could fill in.
            space.missing.forget(start, start + PAGE_BYTES)
            userfault.wake(space.descriptor, start, PAGE_BYTES)
        return self._settled(space, number)

    @staticmethod
    def _settled(space: Space, number: int) -> bool:
        """Whether nothing is to be waited for after *number*, an errno or 0. :raises OSError: it makes no sense."""
        if number == errno.ESRCH:
            space.ended = True
            space.waiting.clear()
        elif number in (errno.EAGAIN, errno.ENOMEM):
            return False
        elif number not in (0, errno.EEXIST, errno.ENOENT, errno.EINVAL):
            raise OSError(number, "memory of a process cannot be filled in")
        return True
