"""What a migration that was cut off with its lab leaves on the machine itself: its frozen cgroup, empty by then.

All else of a host is in its namespaces and goes with them; cgroups are the kernel's, whatever namespace shows them.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from migrate import place
from migrate.lab.state import Init


def of(inits: Iterable[Init]) -> set[str]:
    """The names of the cgroups of the migrations that are on the hosts of these, as long as they live."""
    names = set()
    for init in inits:
        with contextlib.suppress(OSError):
            found = [*Path(f"/proc/{init.pid}/root{place.STATE}").iterdir()] if init.alive() else []
            names |= {f"migrate-{one.name}" for one in found if place.valid_id(one.name)}
    return names


def remove(names: set[str]) -> None:
    """Remove them. Their names are random, so wherever one is, it is that one; one that is in use stays."""
    root = _mount_point()
    if not names or root is None:
        return
    for directory, below, _ in os.walk(root):
        for name in names.intersection(below):
            with contextlib.suppress(OSError):
                Path(directory, name).rmdir()


def _mount_point() -> Path | None:
    """Where this machine has cgroup v2."""
    for line in Path("/proc/mounts").read_text(errors="replace").splitlines():
        _, point, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return Path(point)
    return None
