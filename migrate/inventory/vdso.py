"""A process that has unmapped its vDSO: CRIU looks for it when it builds it, and gives up."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

from migrate.inventory.proc import Mapping
from migrate.pb.session_pb2 import Obstacle

_NAME = "[vdso]"


def obstacles(pid: int, mappings: Iterable[Mapping]) -> Iterator[Obstacle]:
    """Yield that none of *mappings*, all that *pid* has, is one; not if it has ended, or nobody has one here."""
    names = {one.path for one in mappings}
    if names and _NAME not in names and _is_usual():
        yield Obstacle(code="vdso", pid=pid, what=_NAME)


@functools.cache
def _is_usual() -> bool:
    """Not where the kernel was started with vdso=0."""
    return _NAME in Path("/proc/self/maps").read_text()
