"""What is mounted, from /proc/PID/mountinfo. Source: man proc_pid_mountinfo(5)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Mount(NamedTuple):
    """One mount, as the process sees it that was asked.

    :ivar number: of the mount, as ``mnt_id`` of a descriptor. :ivar parent: of the mount that it is mounted on.
    :ivar device: ``major:minor`` of the file system.
    :ivar root: which directory of the file system is mounted; "/": the whole of it.
    :ivar place: where.
    :ivar options: of the mount. :ivar more: of the file system.
    :ivar kind: type of the file system. :ivar source: what is mounted.
    """

    number: int
    parent: int
    device: str
    root: str
    place: str
    options: tuple[str, ...]
    kind: str
    source: str
    more: tuple[str, ...]

    @property
    def shown(self) -> str:
        """Its place as text that any reader takes, whatever bytes the name has."""
        return os.fsencode(self.place).decode(errors="replace")


def here() -> list[Mount]:
    """Those of this process, each above those that it covers or holds."""
    return parse(os.fsdecode(Path("/proc/self/mountinfo").read_bytes()))


def parse(content: str) -> list[Mount]:
    """Those in the content of /proc/PID/mountinfo; a line that makes no sense is left out."""
    found = (_mount(line) for line in content.split("\n"))
    return [one for one in found if one is not None]


def _mount(line: str) -> Mount | None:
    before, _, after = line.partition(" - ")
    fields, rest = before.split(" "), after.split(" ")
    if len(fields) < 6 or len(rest) < 3 or not all(one.isascii() and one.isdigit() for one in fields[:2]):
        return None
    number, parent, device, root, place, options, *_ = fields
    kind, source, more, *_ = rest
    return Mount(
        int(number[:18]),
        int(parent[:18]),
        device,
        _unescaped(root),
        _unescaped(place),
        tuple(options.split(",")),
        kind,
        _unescaped(source),
        tuple(more.split(",")),
    )


def _unescaped(path: str) -> str:
    """What the kernel wrote as ``path``: it writes blanks, line feeds and backslashes in octal digits."""
    for character in " \t\n#\\":
        path = path.replace(f"\\{ord(character):03o}", character)
    return path
