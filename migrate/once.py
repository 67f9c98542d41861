"""What is used up when it becomes something else: to use it twice is a mistake of ours, and said at once."""

from __future__ import annotations


class Once:
    """Something that gives on what it has, once."""

    _used_up = False

    def use_up(self) -> None:
        """It becomes something else now, or tries to: after that it can only be undone.

        :raises RuntimeError: it did before.
        """
        if self._used_up:
            raise RuntimeError(f"{type(self).__name__} was used before")
        self._used_up = True
