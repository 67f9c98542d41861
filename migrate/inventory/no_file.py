"""Memory that /proc shows as a file, and is none: of which kinds CRIU carries nothing.

Shared memory of System V it carries where the tree has an IPC namespace of its own: see own_ipc. Pure."""

from __future__ import annotations

#: How its name begins -> the obstacle.
_KINDS = {"/SYSV": "sysv-shm", "/secretmem (deleted)": "secret-memory"}


def obstacle(path: str) -> str:
    """What is in the way where a mapping or a descriptor shows *path*; "": nothing."""
    return next((code for start, code in _KINDS.items() if path.startswith(start)), "")
