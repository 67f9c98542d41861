"""What waits to be sent, and what has come: the two queues of a link. No thread, no lock: the link has them."""

from __future__ import annotations

import collections
from typing import NamedTuple

from google.protobuf.message import Message

from migrate.errors import ProtocolError
from migrate.link import failure
from migrate.link.questions import Questions
from migrate.pb.session_pb2 import Failure

#: Pieces of files, which wait while control messages overtake them.
BULK_KINDS = frozenset({"image", "copy"})
MOST_BULK = 4
MOST_RECEIVED = 64


class SendQueue:
    """Encoded frames on their way to the stream: control ones first, each sort in its order."""

    def __init__(self) -> None:
        self._control: collections.deque[bytes] = collections.deque()
        self._bulk: collections.deque[bytes] = collections.deque()
        self._writing = False

    def put(self, data: bytes, *, bulk: bool = False) -> None:
        """Add a frame; who adds a bulk one has seen that there is :attr:`room`."""
        (self._bulk if bulk else self._control).append(data)

    @property
    def room(self) -> bool:
        """Whether another bulk frame may be added."""
        return len(self._bulk) < MOST_BULK

    @property
    def waits(self) -> bool:
        """Whether there is a frame to be taken."""
        return bool(self._control or self._bulk)

    @property
    def flushed(self) -> bool:
        """Whether all has been handed to the stream."""
        return not (self.waits or self._writing)

    def take(self) -> bytes | None:
        """The next frame, None when none waits; until :meth:`written` something is being written."""
        self._writing = True
        queue = self._control or self._bulk
        return queue.popleft() if queue else None

    def written(self) -> None:
        """What was taken has been handed to the stream."""
        self._writing = False


class Received(NamedTuple):
    """A message as it came.

    :ivar kind: its field in Frame.
    :ivar number: of the question that it is or answers; 0: of none.
    """

    kind: str
    message: Message
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

    def put(self, kind: str, message: Message, number: int = 0) -> None:
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
