"""What waits to be sent, and what has come: the two queues of a link. No thread, no lock: the link has them."""

from __future__ import annotations

import collections
from typing import NamedTuple

from migrate.errors import ProtocolError
from migrate.link import failure
from migrate.link.payloads import Said
from migrate.link.questions import Questions
from migrate.pb.session_pb2 import Failure

#: What goes first: control messages, then connections, for whom somebody waits, then pieces of files. All but the
#: first wait for room.
CONTROL, CONNECTIONS, FILES = range(3)
LANES = {"connections": CONNECTIONS, "image": FILES, "copy": FILES}
MOST_BULK = 4
MOST_RECEIVED = 64
#: Frames are written together up to this size, that of a packet of SSH.
TOGETHER_BYTES = 32 << 10


#: A frame, and what stands behind it.
Parts = tuple[bytes, bytes]


class SendQueue:
    """Encoded frames and their payloads on their way to the stream: by lanes, each in its order."""

    def __init__(self) -> None:
        self._lanes: list[collections.deque[Parts]] = [collections.deque() for _ in range(3)]
        self._writing = False

    def put(self, parts: Parts, lane: int = CONTROL) -> None:
        """Add a frame; who adds to another lane than CONTROL has seen that there is :meth:`room`."""
        self._lanes[lane].append(parts)

    def room(self, lane: int) -> bool:
        """Whether another frame may be added there."""
        return lane == CONTROL or len(self._lanes[lane]) < MOST_BULK

    @property
    def waits(self) -> bool:
        """Whether there is a frame to be taken."""
        return any(self._lanes)

    @property
    def flushed(self) -> bool:
        """Whether all has been handed to the stream."""
        return not (self.waits or self._writing)

    def take(self) -> Parts | None:
        """The next frame, None when none waits; until :meth:`written` something is being written."""
        self._writing = True
        lane = next(filter(None, self._lanes), None)
        return lane.popleft() if lane else None

    def take_some(self) -> list[bytes]:
        """As :meth:`take`: what to write, one after the other; nothing when none waits.

        Small frames are written together: each piece costs a packet of SSH, its encryption on either host, and who
        waits for it a wake-up, and CRIU's images are dozens of small files.
        """
        taken = [*(self.take() or ())]
        left = TOGETHER_BYTES - sum(map(len, taken))
        while taken and (lane := next(filter(None, self._lanes), None)):
            left -= sum(map(len, lane[0]))
            if left < 0:
                break
            taken += lane.popleft()
        return [b"".join(taken)] if 0 < sum(map(len, taken)) <= TOGETHER_BYTES else [*filter(None, taken)]

    def written(self) -> None:
        """What was taken has been handed to the stream."""
        self._writing = False


class Received(NamedTuple):
    """A message as it came.

    :ivar kind: its field in Frame.
    :ivar number: of the question that it is or answers; 0: of none.
    """

    kind: str
    message: Said
    number: int


class ReceiveQueue:
    """Messages that have come and were not taken yet, in their order; a Failure may be taken before its turn.

    :param role: who sends them: ``"origin"`` or ``"destination"``.
    :ivar questions: which of them answer what.
    """

    def __init__(self, role: str) -> None:
        self.questions = Questions()
        self._role = role
        self._waiting: collections.deque[Received] = collections.deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def room(self) -> bool:
        """Whether another message may be added; until then it waits in the stream."""
        return len(self._waiting) < MOST_RECEIVED

    def put(self, kind: str, message: Said, number: int = 0) -> None:
        """Add what has come last."""
        self._waiting.append(Received(kind, message, number))

    def take(self) -> Received:
        """Take the next one; there is one."""
        taken = self._waiting.popleft()
        self.questions.taken(taken.kind, taken.number)
        return taken

    @property
    def first(self) -> str | None:
        """The kind of the next one; None when there is none."""
        return self._waiting[0].kind if self._waiting else None

    def has(self, kind: str) -> bool:
        """Whether one of *kind* is among them."""
        return any(one.kind == kind for one in self._waiting)

    def raise_failure(self) -> None:
        """Take the first Failure, whatever came before it, and raise it; return if there is none.

        :raises MigrateError: an error of the class that it names.
        """
        for index, one in enumerate(self._waiting):
            if isinstance(one.message, Failure):
                del self._waiting[index]
                raise failure.from_failure(one.message, self._role)

    def accepts(self, taken: Received, kinds: tuple[str, ...], *, discard: bool = False) -> bool:
        """Whether *taken*, a message of this queue, is of *kinds* and no answer to something else.

        :param discard: return False if it is not, instead of raising.
        :raises MigrateError: it is a Failure: an error of the class that it names.
        :raises ProtocolError: it does not belong here.
        """
        stray = self.questions.stray(taken.kind, taken.number)
        if taken.kind in kinds and not stray:
            return True
        if discard:
            return False
        if stray and taken.kind in kinds:
            raise self._wrong(f"sent {taken.kind} that answers no question that was asked")
        if isinstance(taken.message, Failure):
            raise failure.from_failure(taken.message, self._role)
        raise self._wrong(f"sent {taken.kind} where {' or '.join(kinds)} was expected")

    def _wrong(self, text: str) -> ProtocolError:
        return ProtocolError(text)
