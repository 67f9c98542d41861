"""Questions of the driver and answers of the agent: a number shows which belongs to which. Pure but for chance.

What was said before the question was asked, or twice, must not count as its answer: the driver gives a process
away because of one.
"""

from __future__ import annotations

import secrets

#: What the driver asks, and what the agent answers, as fields of Frame.
QUESTIONS = frozenset(
    {"process", "compare", "prepare", "restore", "switch", "commit", "abort", "ask", "goodbye"}
)
ANSWERS = frozenset(
    {"host", "compared", "prepared", "restored", "switched", "activated", "aborted", "answer", "goodbye"}
)


class Questions:
    """One side's account; who is asked does not ask.

    :ivar asked: the number of our last question; 0: there was none.
    :ivar answering: that of the question we were asked last; 0: there was none.
    """

    def __init__(self) -> None:
        self.asked = self.answering = 0

    def number(self, kind: str) -> int:
        """The number for a message to be sent: of the question that it is, or that it answers; else 0.

        At random, so that an answer to a question that is yet to come can have none that fits.
        """
        if self.answering:
            return self.answering
        if kind in QUESTIONS:
            self.asked = 1 + secrets.randbelow((1 << 32) - 1)
            return self.asked
        return 0

    def taken(self, kind: str, number: int) -> None:
        """A message that came is looked at now."""
        if kind in QUESTIONS and not self.asked:
            self.answering = number

    def stray(self, kind: str, number: int) -> bool:
        """Whether a message that came is an answer, but not to our last question."""
        return kind in ANSWERS and number != self.asked and not self.answering
