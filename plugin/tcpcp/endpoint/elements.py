"""Until when elements of the filter may be there, by our own clock; whether they are the kernel alone knows."""

from __future__ import annotations

import time
from collections.abc import Iterable

from tcpcp.endpoint import isolation
from tcpcp.endpoint.isolation import Flow


class Elements:
    """Those of one kind, for both IP versions, by the keys that they have in the kernel."""

    def __init__(self) -> None:
        self._until: dict[bytes, float] = {}

    def note(self, flows: Iterable[Flow]) -> None:
        """*flows* have been put there now, for a timeout."""
        until = time.monotonic() + isolation.TIMEOUT_S + 1
        self._until.update(dict.fromkeys([flow.key for flow in flows], until))

    def note_key(self, key: bytes, left_s: int) -> None:
        """Somebody else's has been taken over, unless there is one of ours."""
        self._until.setdefault(key, time.monotonic() + left_s + 1)

    def among(self, flows: Iterable[Flow]) -> list[Flow]:
        """Those of *flows* that were noted, and have not been dropped."""
        return [flow for flow in flows if flow.key in self._until]

    def there(self, flows: Iterable[Flow]) -> list[Flow]:
        """Those of *flows* that may be there still."""
        now, until = time.monotonic(), self._until.get
        return [flow for flow in flows if until(flow.key, 0) > now]

    def drop(self, flows: Iterable[Flow]) -> None:
        """*flows* are not there any more."""
        for flow in flows:
            self._until.pop(flow.key, None)

    def remain(self) -> bool:
        """Whether any may be there; what is over is forgotten."""
        now = time.monotonic()
        for key in [key for key, until in self._until.items() if until < now]:
            del self._until[key]
        return bool(self._until)
