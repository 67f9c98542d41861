"""What a host permits at the place of a file: to make, write or execute it. Free space, mounts, attributes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from migrate.inventory import attributes
from migrate.pb.session_pb2 import File
from migrate.processes import mounts

#: What is made is made beside what is at the path: the tree that is put aside, a name of CRIU's own.
_BESIDE = frozenset({File.COPIED_TREE, File.DELETED})


def add(here: File) -> None:
    """Say in *here* what is so where the file is, or would be."""
    here.attributes.extend(attributes.of(here.path))
    beside = here.exists or here.use in _BESIDE
    places = [Path(here.path), *Path(here.path).parents]
    for place in places[here.use in _BESIDE :]:
        with contextlib.suppress(OSError, ValueError):
            _add_space(here, place)
            folder = place.parent if beside and place == places[0] else place
            here.closed_directory = str(folder) if attributes.of(str(folder)) else ""
            return


def _add_space(here: File, place: Path) -> None:
    space = os.statvfs(place)
    here.free_bytes, here.file_system = space.f_bavail * space.f_frsize, os.stat(place).st_dev  # noqa: PTH116
    if space.f_files:  # there are file systems that do not count them
        here.free_files = space.f_favail
    flags = space.f_flag & (os.ST_RDONLY | os.ST_NOEXEC | os.ST_NODEV)
    mount = _mount_of(os.path.realpath(place)) if flags else ""
    here.read_only = mount if flags & os.ST_RDONLY else ""
    here.no_exec = mount if flags & os.ST_NOEXEC else ""
    here.no_devices = mount if flags & os.ST_NODEV else ""


def _mount_of(path: str) -> str:
    """Where the file system is mounted that *path*, without links, is on."""
    found = mounts.here()
    above = [one for one in found if path == one.place or path.startswith(f"{one.place.rstrip('/')}/")]
    return max(above, key=lambda one: len(one.place)).shown
