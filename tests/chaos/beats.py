"""Which copy ran when: the beats of both hosts, collected while a run is under way."""

from __future__ import annotations

import threading
import time
from itertools import groupby

from world import SIDES, World


class Beats:
    """Collects until :meth:`end`; the beats are taken away, so that a long run keeps few files."""

    def __init__(self, world: World) -> None:
        self._paths = {side: world.host(side).root / "tmp/beats" for side in SIDES}
        self._seen: list[tuple[int, str]] = []
        self._ended = threading.Event()
        self.worst_wait_s = 0.0
        self._real_s = time.time() - time.monotonic()
        self._take(keep=False)
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        before = time.monotonic()
        while not self._ended.wait(0.2):
            now = time.monotonic()
            self.worst_wait_s = max(self.worst_wait_s, now - before - 0.2)
            self._take()
            before = time.monotonic()

    def _take(self, keep: bool = True) -> None:
        for side, path in self._paths.items():
            try:
                found = [one for one in path.iterdir() if one.name != "do"]
            except OSError:
                continue
            for one in found:
                one.unlink(missing_ok=True)
                if keep:
                    self._seen.append((int(one.name.split("-")[1]), side))

    def end(self) -> None:
        """No more."""
        self._ended.set()
        self._thread.join()
        self._take()

    @property
    def order(self) -> list[str]:
        """The hosts on which it ran, one after the other: at most origin, then destination, if all is well."""
        return [side for side, _ in groupby(side for _, side in sorted(self._seen))]

    def since(self, moment: float) -> dict[str, int]:
        """How many on each host after *moment*, of time.monotonic() here."""
        after = (moment + self._real_s) * 1e9
        return {side: sum(1 for ns, at in self._seen if at == side and ns > after) for side in SIDES}
