"""What the helper tells the system's journal: what was done in whose name, and what has failed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

#: Names of connections in one line.
SHOWN = 3


def note(uid: int, what: str, names: Sequence[str]) -> None:
    """What the user *uid* has done in the name of which connections."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    tell(f"user {uid}: {what} {', '.join(names[:SHOWN])}{more}")


def tell(text: str) -> None:
    """One line."""
    print(f"tcpcp-helper: {text}", file=sys.stderr, flush=True)
