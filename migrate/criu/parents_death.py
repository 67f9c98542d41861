"""The signal that a process wants to have when its parent dies (PR_SET_PDEATHSIG), in CRIU's images.

The parent of the tree stays at the origin. CRIU would give the signal to what it builds, whose parent is CRIU
itself: when that ends, a moment after all is done, the process would be killed. So it is taken out of the images
of the tree's root, and the user is told. Tasks whose parents move with them keep it.

Source: man PR_SET_PDEATHSIG(2const); kernel/exit.c reparent_leader(); CRIU's images/core.proto, thread_core.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from migrate.criu import core
from migrate.processes import pending


def forget(images: Path, pid: int, tids: Iterable[int]) -> list[str]:
    """Take the signal out of the images of process *pid*, of which *tids* are all threads.

    :return: a sentence for each signal that the process does not get any more.
    :raises ProtocolError: an image is not CRIU's.
    """
    signals = {number for tid in {pid, *tids} if (number := _forget_one(images / f"core-{tid}.img"))}
    return [
        f"process {pid} wanted {pending.name(number)} when its parent dies (PR_SET_PDEATHSIG); the parent has"
        " stayed behind, so nobody sends it now: end the process by other means"
        for number in sorted(signals)
    ]


def _forget_one(path: Path) -> int:
    found = []

    def take(entry: Any) -> bool:
        number = int(entry.thread_core.pdeath_sig)
        if number:
            found.append(number)
            entry.thread_core.ClearField("pdeath_sig")
        return bool(number)

    core.change(path, take)
    return found[0] if found else 0
