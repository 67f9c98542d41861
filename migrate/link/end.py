"""Why a link has ended: the first reason counts, and what is an end that was meant is no loss."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

from migrate.errors import EndedWell, MigrateError, TransportError


class Lost(TransportError):
    """The link has ended, or is late, and nobody has said why."""

    @property
    def kind(self) -> str:
        """See :class:`migrate.errors.MigrateError`: for a user it is the same."""
        return TransportError.__name__


class End:
    """The end of a link, which has not come yet. No lock: the link has one.

    :param role: the other side, named in errors.
    :param explain: a better error than "the stream ended", or None.
    :ivar error: why it has ended; None while it lives.
    :ivar goodbye: the other side has said that it goes. :ivar closing: so have we.
    :ivar over: set at the end. :ivar lost: set too if neither of the two was said.
    """

    def __init__(self, role: str, explain: Callable[[], MigrateError | None] | None = None) -> None:
        self.error: MigrateError | None = None
        self.goodbye = self.closing = False
        self.over, self.lost = threading.Event(), threading.Event()
        self._role, self._explain = role, explain

    def require_none(self) -> None:
        """Return while the link lives. :raises MigrateError: why it has ended."""
        if self.error is not None:
            # A copy, since each raise adds to an exception's traceback and notes.
            raise copy.copy(self.error)

    def come(self, error: MigrateError, *, lost: bool) -> None:
        """It has come, because of *error*, not before."""
        self.error = error
        if lost and not self.closing:
            self.lost.set()
        self.over.set()

    # --- reasons -----------------------------------------------------------------------------------------

    def explained(self) -> MigrateError | None:
        """What the stream's owner knows of its end; None: nothing."""
        # Not worth a wait once the link has ended for another reason.
        return self._explain() if self._explain is not None and self.error is None else None

    def of_stream(self) -> MigrateError:
        """The other side has closed the stream."""
        text = "said goodbye" if self.goodbye else "closed the connection"
        plain = self._error(f"the {self._role} {text}")
        return plain if self.goodbye else self.explained() or plain

    def of_nonsense(self, error: MigrateError) -> MigrateError:
        """What came is *error*: the last of it may be cut, or no agent's, because who wrote it could not go on."""
        explained = self.explained()
        return error if explained is None or isinstance(explained, EndedWell) else explained

    def broken(self, error: OSError) -> TransportError:
        """The stream broke."""
        return self._error(f"the connection to the {self._role} broke: {error.strerror or error}")

    def silent(self, silence_s: float) -> TransportError:
        """Nothing was heard for *silence_s*."""
        hint = "Look whether the host is up and the network between the two works."
        text = f"the {self._role} has been silent for {silence_s:g} s: the link is lost"
        return self._error(text, hint)

    def closed(self) -> TransportError:
        """We have closed it."""
        return self._error("the link was closed")

    def late(self, text: str) -> TransportError:
        """The link lives, but the other side did not do in time what *text* says."""
        return self._error(f"the {self._role} {text}")

    def _error(self, text: str, hint: str = "") -> TransportError:
        return Lost(text, hint=hint)
