"""A signal whose handler raises, in the midst of anything."""

from __future__ import annotations

import signal


class Alarm:
    """SIGALRM raises KeyboardInterrupt once, as long as it is set: another thread may take it late."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self, after_s: float) -> None:
        self._is_set = True
        signal.setitimer(signal.ITIMER_REAL, after_s)

    def over(self) -> None:
        self._is_set = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def handle(self, number: int, frame: object) -> None:
        if self._is_set:
            self._is_set = False
            raise KeyboardInterrupt
