"""How long the steps before COMMIT may take: each as a whole, and all of them that somebody outside notices.

Pure but for the clock. A process that is frozen waits for whatever its migration waits for: a lock that is held
on the destination, a device that does not answer, a slow link. So the time from the moment in which new
connections are held and the process is frozen has a limit of its own, whatever it is spent on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from migrate.errors import TookTooLong

#: The destination builds the tree within this part of what is left: its answer, which says what kept it, and
#: its undo before that, shall come before the time is over.
BUILDING = 0.8

_MANY = "That takes longer the more processes and threads it has, and the busier the host is."

#: Step -> what was not finished, and what the user can do.
_WORDS: Mapping[str, tuple[str, str]] = {
    "freeze": (
        "it could not be frozen",
        "Look whether the server accepts its connections, and whether a task of it hangs (state D in ps).",
    ),
    "dump": (
        "its images were still being written, and sent as they grow",
        f"{_MANY} If it has few, look whether the link is slow, and for files and devices that do not answer.",
    ),
    "isolate": ("its connections were still being read", ""),
    "stream": (
        "its images were still being sent",
        "The link is slow for what the process changes: try again when it writes less.",
    ),
    "restore": (
        "the destination was still building it",
        f"{_MANY} If it has few, look there for what CRIU waits for: a lock that somebody holds (lslocks), a"
        " device or a file system that does not answer; and whether the link, or that host, is slow.",
    ),
    "switch": (
        "the destination did not answer for the addresses yet",
        "Look whether that host is overloaded.",
    ),
}


class Patience:
    """The two limits of one migration.

    :param step_s: for each step as a whole, ``--timeout``.
    :param gap_s: from :meth:`begin_gap` on, whatever is done, ``--max-gap``.
    :param now: the clock, seconds.
    """

    def __init__(self, step_s: float, gap_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._step_s, self._gap_s, self._now = step_s, gap_s, now
        self._step = self._held = ""
        self._step_until = self._gap_until = float("inf")

    def begin_step(self, name: str) -> None:
        """The step *name* begins: what was not finished is this one from now on."""
        self._step, self._held, self._step_until = name, "", self._now() + self._step_s

    def held(self, state: str) -> None:
        """For tests: what the time is spent on is that somebody holds it at *state*."""
        self._held = state

    def begin_gap(self) -> None:
        """New connections are about to be held, and the process to be frozen."""
        self._gap_until = self._now() + self._gap_s

    @property
    def gap_until(self) -> float:
        """When ``--max-gap`` is over, on the clock; infinity before the gap."""
        return self._gap_until

    @property
    def until(self) -> float:
        """When the first of the limits is over, on the clock; infinity when none has begun."""
        return min(self._step_until, self._gap_until)

    @property
    def left_s(self) -> float:
        """How long until then; never negative."""
        return max(0.0, self.until - self._now())

    def check(self) -> None:
        """Return while there is time.

        :raises TookTooLong: there is none left.
        """
        if self._now() < self.until:
            return
        unfinished, hint = _WORDS.get(self._step, ("it was not finished", ""))
        if self._held:
            unfinished, hint = f"it was still held at {self._held}", ""
        if self._gap_until <= self._step_until:
            text = f"{self._gap_s:g} s after new connections were first held {unfinished}"
            option = "--max-gap"
        else:
            text = f"{self._step_s:g} s after the step {self._step} began {unfinished}"
            option = "--timeout"
        raise TookTooLong(text, hint=f"{hint} Or allow more with {option}.".strip())


def in_words(gap_s: float) -> str:
    """What ``--check`` says about it."""
    return (
        f"the process would be frozen, and new connections be held, for at most {gap_s:g} s (--max-gap); if that"
        " is not enough it goes on here"
    )
