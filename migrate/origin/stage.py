"""A state of a migration on the origin as an object: it has what is there then, and takes the step that leaves it.

A stage is what the step before has returned; :meth:`Stage.take` takes its step, once, and returns the next one.
What would be needed to undo a step is in the journal before it is done; what has to be given back is with
:class:`migrate.origin.move.Move` as soon as it is had, so that a step may fail anywhere.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from migrate.inventory import plain_options
from migrate.once import Once
from migrate.origin.attempt import Attempt
from migrate.origin.frozen import FrozenTree
from migrate.origin.ready import Ready
from migrate.pb import session_pb2 as pb
from migrate.processes.waits import Wait
from migrate.states import State
from tcpcp.criu.stages import Extract


class Stage(Once, abc.ABC):
    """What there is in :attr:`state`.

    :param attempt: CRIU, which waits to go on.
    """

    state: ClassVar[State]

    def __init__(self, ready: Ready, attempt: Attempt) -> None:
        self.ready, self.attempt = ready, attempt

    def take(self) -> Stage:
        """Take the step that leaves this state, and return what there is then.

        :raises RuntimeError: that was tried before: what was here is not here any more.
        """
        self.use_up()
        return self._next()

    @abc.abstractmethod
    def _next(self) -> Stage: ...


@dataclass(frozen=True, slots=True)
class Found:
    """The frozen tree, and what was found in it.

    :ivar extract: its TCP sockets. :ivar held: who holds which of them, by inode.
    :ivar options: what its other sockets have that CRIU does not know.
    :ivar waits: system calls that the dump has ended.
    """

    tree: FrozenTree
    extract: Extract
    held: Mapping[int, pb.HeldSocket]
    surroundings: list[pb.Surroundings]
    options: Sequence[plain_options.Held]
    waits: Sequence[Wait]


class Still(Stage):
    """What there is once something that only we let go keeps the tree still."""

    def __init__(self, ready: Ready, attempt: Attempt, found: Found) -> None:
        super().__init__(ready, attempt)
        self._found = found
