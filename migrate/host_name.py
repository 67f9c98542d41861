"""What this host is called where a user reads of it: by its name, or by its part where it has none."""

from __future__ import annotations

import os

#: What hosts are called that nobody has named: it tells none of them from another.
_NO_NAMES = frozenset({"", "(none)", "localhost", "localhost.localdomain", "localhost6"})


def here(role: str = "origin", *, other: str = "") -> str:
    """This host's name; *role* where it has none, and both where the other host is called the same.

    :param other: the other host as the user names it, perhaps with a login name.
    Source: man uname(2).
    """
    name = os.uname().nodename
    if name in _NO_NAMES:
        return role
    return f"{name} ({role})" if name == other.rpartition("@")[2] else name
