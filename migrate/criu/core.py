"""A thread's ``core`` image of CRIU's: its registers, credentials and signals.

Source: CRIU's images/core.proto, criu/cr-dump.c dump_task_core_all().
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from migrate.criu import records


def change(path: Path, changed: Callable[[Any], bool]) -> None:
    """Write the image at *path* again if *changed*, which is given its core_entry, says that it has changed it.

    One that is missing stays so: CRIU does not find it either, and says so.

    :raises ProtocolError: it is not CRIU's.
    """
    from pycriu.images import pb

    if not path.exists():
        return
    data = path.read_bytes()
    first = next(records.read(data, pb.core_entry, path.name), None)
    if first is None:
        raise records.broken(path.name)
    entry, before = first
    if changed(entry):
        rest = data[len(records.with_messages(data, [before])) :]
        path.write_bytes(records.with_messages(data, [entry.SerializePartialToString()]) + rest)
