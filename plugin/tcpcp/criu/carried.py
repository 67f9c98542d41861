"""What a hook puts beside CRIU's images at the dump, and finds there at the restore, on whatever host.

Two files, which travel with the images, in podman's archive for one: the ICIs as :mod:`tcpcp.record.codec` writes
them, and JSON that says whose sockets they are. Processes are numbered as their own PID namespace numbers them,
which is all that is the same on both hosts.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tcpcp.errors import CodecError
from tcpcp.kernel.writing import write_all
from tcpcp.record import codec
from tcpcp.record.ici import Ici

SOCKETS, CONNECTIONS = "tcpcp-sockets.json", "tcpcp-connections.img"
_FORMAT = 1
_NAME = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Carried:
    """The TCP sockets of a tree.

    :ivar name: of the filters around them, the same on both hosts.
    :ivar holders: inode -> (PID, descriptor), one for each socket, as the tree numbers itself.
    :ivar listeners: inode of a socket that listens or has no connection -> (options, congestion algorithm).
    :ivar closed: inodes of sockets that had a connection once.
    """

    name: str
    icis: list[Ici]
    holders: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    listeners: Mapping[int, tuple[dict[str, int], str]] = field(default_factory=dict)
    closed: list[int] = field(default_factory=list)

    def write(self, directory: int) -> None:
        """Into the directory that is open as *directory*. :raises OSError: it cannot be written."""
        said = asdict(self) | {"format": _FORMAT}
        del said["icis"]
        _write(directory, CONNECTIONS, b"".join(map(codec.dumps, self.icis)))
        _write(directory, SOCKETS, json.dumps(said).encode())


def read(directory: int) -> Carried | None:
    """What is there; None: no hook was at the dump.

    :raises CodecError: it makes no sense.
    """
    try:
        said, connections = _read(directory, SOCKETS), _read(directory, CONNECTIONS)
    except FileNotFoundError:
        return None
    try:
        return _carried(json.loads(said), list(codec.loads_many(connections)))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CodecError(f"{SOCKETS}: {type(error).__name__}: {error}") from None


def _carried(said: Any, icis: list[Ici]) -> Carried:
    if said["format"] != _FORMAT:
        raise ValueError(f"format {said['format']!r}, expected {_FORMAT}")
    if not _NAME.fullmatch(said["name"]):
        raise ValueError(f"no name: {said['name']!r}")
    holders = {int(inode): (int(pid), int(fd)) for inode, (pid, fd) in said["holders"].items()}
    listeners = {
        int(inode): ({str(name): int(value) for name, value in options.items()}, str(algorithm))
        for inode, (options, algorithm) in said["listeners"].items()
    }
    if unheld := {*(ici.tag for ici in icis), *listeners} - set(holders):
        raise ValueError(f"sockets that nobody holds: {sorted(unheld)[:5]}")
    return Carried(said["name"], icis, holders, listeners, [int(one) for one in said["closed"]])


def _write(directory: int, name: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _read(directory: int, name: str) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, dir_fd=directory), "rb") as file:
        return file.read()
