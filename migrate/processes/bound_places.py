"""Where a unix socket is that is bound by a name with symbolic links on its way: each host may have other ones.

CRIU binds to the name, as root, and follows them. Who looks whether the place is free, and who removes the socket
after a rollback, must look at the place where it is then; and a link of some user's must not choose that. So it is
bound only where all links on the way lead to the place that it has at the origin.
"""

from __future__ import annotations

import os
from pathlib import Path

from migrate.pb.session_pb2 import TakenName


def is_linked(name: str, path: str) -> bool:
    """Whether *name*, to which a socket was bound, leads to its file at *path* by symbolic links (or ``..``)."""
    return name.startswith("/") and name != path and _led_to(name) == path


def elsewhere(one: TakenName) -> str:
    """Where CRIU would make the file of a unix socket on this host, for people; "" where it is to be.

    Not of one whose file has been deleted: CRIU removes it again.
    """
    if one.kind != TakenName.PATH or not one.mode:
        return ""
    try:
        place = _led_to(one.linked_name or one.name)
    except (OSError, ValueError):
        return ""  # no host can have it
    return os.fsencode(place).decode(errors="replace") if place != one.name else ""


def _led_to(name: str) -> str:
    """The last part is none that bind(2) follows."""
    folder, last = os.path.split(name)
    return str(Path(os.path.realpath(folder), last))
