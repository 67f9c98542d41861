"""The directory of one migration's log: /var/log/migrate/ID, made if it is missing, trusted only if it is root's.

On some systems a group may write to /var/log. So no link is followed below it, and a directory that is there
already has to be ours.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Generator

from migrate import place

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextlib.contextmanager
def root() -> Generator[int, None, None]:
    """A descriptor of /var/log/migrate.

    :raises OSError: it cannot be made, is a link, or is not ours alone to write to.
    """
    above = os.open(place.LOGS.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = _inside(above, place.LOGS.name, str(place.LOGS))
    finally:
        os.close(above)
    try:
        yield found
    finally:
        os.close(found)


def of(migration_id: str) -> int:
    """A descriptor of the directory of *migration_id*, which the caller closes.

    :raises OSError: as :func:`root`.
    """
    with root() as above:
        return _inside(above, migration_id, str(place.log(migration_id)))


def file(directory: int, name: str, *, append: bool) -> int:
    """A descriptor to write to the file *name* there, 0600.

    :param append: after what is there, each write as a whole; else there must be none.
    :raises OSError: it cannot be opened, or is no file of our own.
    """
    flags = _FILE | (os.O_APPEND if append else os.O_EXCL)
    found = os.open(name, flags, 0o600, dir_fd=directory)
    status = os.fstat(found)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink != 1:
        os.close(found)
        raise OSError(errno.EPERM, "it is no file of root's alone", name)
    return found


def _inside(above: int, name: str, path: str) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=above)
    try:
        found = os.open(name, _DIRECTORY, dir_fd=above)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    status = os.fstat(found)
    if not place.is_ours_alone(status):
        os.close(found)
        raise OSError(errno.EPERM, "it is not root's, or others may write to it", path)
    return found
