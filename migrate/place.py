"""Where a host keeps what belongs to a migration: on a disk that persists only the log."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

#: Journals and locks; a tmpfs on every distribution, so a reboot forgets processes that it has ended.
STATE = Path("/run/migrate")
#: What is to be free there: a journal, locks, and what those before have left.
JOURNAL_BYTES = 64 << 10
#: Logs, a directory for each migration: :mod:`migrate.events`.
LOGS = Path("/var/log/migrate")
#: Where syslogd or journald listens.
SYSLOG = Path("/dev/log")
#: Candidates for image directories.
MEMORY = (Path("/dev/shm"), Path("/run"))

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ID = re.compile(r"[0-9a-f]{12}")


def is_ours_alone(status: os.stat_result) -> bool:
    """Whether a directory is root's (ours), and nobody else may write to it."""
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def is_absolute(name: str) -> bool:
    """Whether *name*, from the network, is a path that a file may have: absolute and without detours."""
    path = Path(name)
    return (
        path.is_absolute()
        and "\0" not in name
        and ".." not in path.parts
        and path == Path(os.path.normpath(path))
        and path.name != ""
    )


def valid_id(migration_id: str) -> bool:
    """Whether *migration_id*, which may come from the network, is fit to be part of a path."""
    return _ID.fullmatch(migration_id) is not None


def new_id() -> str:
    """A name for one migration: 12 hexadecimal digits."""
    return os.urandom(6).hex()


def home(migration_id: str) -> Path:
    """The directory of one migration's journal on this host."""
    return STATE / _valid(migration_id)


def log(migration_id: str) -> Path:
    """The directory of one migration's log on this host."""
    return LOGS / _valid(migration_id)


def _valid(migration_id: str) -> str:
    if not valid_id(migration_id):
        raise ValueError(f"not a migration's id: {migration_id!r}")
    return migration_id


def image_root() -> Path:
    """The memory file system with the most space now.

    :raises FileNotFoundError: the host has no tmpfs.
    """
    mounted = tmpfs_in(Path("/proc/mounts").read_bytes())
    choices = [path for path in MEMORY if str(path) in mounted]
    if not choices:
        raise FileNotFoundError(f"none of {', '.join(map(str, MEMORY))} is a tmpfs")
    return max(choices, key=lambda path: shutil.disk_usage(path).free)


def problems() -> list[str]:
    """Sentences: why a migration could not write here what it has to, in memory. Nothing is written."""
    found = []
    with contextlib.suppress(OSError):  # that there is none is told with its room
        images = image_root()
        if os.statvfs(images).f_flag & os.ST_RDONLY:
            found.append(f"{images}, where images go, is mounted read-only")
    try:
        status = os.statvfs(STATE if STATE.exists() else STATE.parent)
    except OSError as error:
        return [*found, f"{STATE.parent} cannot be looked at: {error.strerror}"]
    if status.f_flag & os.ST_RDONLY:
        found.append(f"{STATE.parent} is mounted read-only")
    elif status.f_bavail * status.f_frsize < JOURNAL_BYTES:
        found.append(f"{STATE.parent} is full")
    return found


def choose_images(migration_id: str) -> Path:
    """Where the images of one migration shall be: in memory. Nothing is made.

    To be asked once, and the answer passed on: a moment later another file system may have the most space, and what
    the journal names would not be what is made.

    :raises FileNotFoundError: see :func:`image_root`.
    """
    return image_root() / f"migrate-{_valid(migration_id)}"


def device_of(directory: Path) -> int:
    """Which file system it is, or is to be, in: as st_dev."""
    return directory.parent.stat().st_dev


def make_images(directory: Path) -> tuple[int, int]:
    """Make what :func:`choose_images` has chosen, private to root; the journal names it by now.

    :return: descriptors; as long as they, or those of :func:`hold_images`, are open, nobody takes the images for
        left, and who has them removes the images also where somebody mounts something over them.
    """
    while True:
        directory.mkdir(mode=0o700)
        held = hold_images(directory)
        with contextlib.suppress(FileNotFoundError):  # taken for left before it was held
            if os.path.samestat(os.fstat(held[0]), directory.stat()):
                return held
        for descriptor in held:
            os.close(descriptor)


def hold_images(directory: Path) -> tuple[int, int]:
    """Need the images in *directory* as well, see :func:`make_images`. :raises OSError: they are not there."""
    above = os.open(directory.parent, _DIRECTORY)
    try:
        held = os.open(directory.name, _DIRECTORY, dir_fd=above)
    except OSError:
        os.close(above)
        raise
    fcntl.flock(held, fcntl.LOCK_SH)
    return held, above


def remove_images(directory: Path, device: int = 0) -> None:
    """Remove *directory*, also where its path does not lead to it any more, if this process holds it.

    :param device: as :func:`device_of` said when it was made; 0: that is not known.
    :raises OSError: it cannot be removed, or not be reached.
    """
    held = [os.dup(one) for one in _opened(directory.parent)]
    reached = set()
    try:
        with contextlib.suppress(FileNotFoundError):
            held.append(os.open(directory.parent, _DIRECTORY))
        for above in held:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(directory.name, dir_fd=above)
            reached.add(os.fstat(above).st_dev)
    finally:
        for above in held:
            os.close(above)
    if device and device not in reached and _is_mounted(device):
        raise OSError(errno.ENXIO, f"something is mounted over {directory.parent}", str(directory))


def _opened(directory: Path) -> list[int]:
    """Descriptors of this process that were opened as *directory*, whatever its path leads to now."""
    found = []
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that by which they are read is gone by now
            if one.readlink() == directory:
                found.append(int(one.name))
    return found


def _is_mounted(device: int) -> bool:
    """Whether the file system is mounted somewhere here, perhaps below another one."""
    name = b"%d:%d" % (os.major(device), os.minor(device))
    lines = Path("/proc/self/mountinfo").read_bytes().split(b"\n")
    return any(line.split(b" ")[2:3] == [name] for line in lines)


@contextlib.contextmanager
def images_left() -> Generator[Iterator[tuple[str, Path]], None, None]:
    """Image directories of this host that nobody needs: those without a journal here that no process holds.

    Whoever shares these file systems, and not /run, holds what is his. Meanwhile nobody else gets hold of them.

    :return: of each the migration's ID and the path.
    """
    with contextlib.ExitStack() as locks:
        yield _images_left(locks)


def _images_left(locks: contextlib.ExitStack) -> Iterator[tuple[str, Path]]:
    for directory in sorted(one for root in MEMORY for one in root.glob("migrate-*")):
        migration_id = directory.name.removeprefix("migrate-")
        if not valid_id(migration_id):
            continue
        with contextlib.suppress(OSError):
            held = os.open(directory, _DIRECTORY)
            locks.callback(os.close, held)
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_ours_alone(os.fstat(held)) and not (home(migration_id) / "journal").exists():
                yield migration_id, directory


def tmpfs_in(mounts: bytes) -> set[str]:
    """Where a tmpfs is mounted, from the content of /proc/mounts.

    Blanks, tabs and line feeds in a name are written otherwise there, other kinds of white space are not.
    """
    lines = (line.split(b" ") for line in mounts.split(b"\n"))
    return {os.fsdecode(fields[1]) for fields in lines if len(fields) > 2 and fields[2] == b"tmpfs"}
