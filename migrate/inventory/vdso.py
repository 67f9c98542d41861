"""A process that has unmapped its vDSO: CRIU looks for it when it builds it, and gives up."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

from migrate.inventory.proc import Mapping

_NAME = "[vdso]"


def is_missing(mappings: Iterable[Mapping]) -> bool:
    """Whether none of *mappings*, all that a process has, is one; no, if it has ended, or nobody has one here."""
    names = {one.path for one in mappings}
    return bool(names) and _NAME not in names and _is_usual()


@functools.cache
def _is_usual() -> bool:
    """Not where the kernel was started with vdso=0."""
    return _NAME in Path("/proc/self/maps").read_text()
