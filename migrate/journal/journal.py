"""What a migration has done on this host so far, written before it is done, so that it can be undone.

A journal is a directory ``/run/migrate/ID`` with

- ``lock``: held (flock) by the process that owns the migration here, the driver or the agent; whoever gets
  it finds an owner that died or has finished;
- ``journal``: JSON lines. The first says whose it is, and the version of the format. The others are entries:
  ``{"did": WORD, ...}`` is an :class:`migrate.journal.entry.Entry`, ``{"state": NAME}`` a state, ``{"end":
  OUTCOME}`` closes it.

Whoever has it open, the owner or its guardian, puts it back where its path does not lead to it any more: somebody
has removed it (``rm -rf``, a cleaner of old files), or has mounted something over it: :meth:`Journal.keep`. Where
that cannot be, what is open is all that they need. One that is forgotten is emptied, so that it is known for such
by its descriptor.

A line cut by a crash was not followed by its action, and is ignored. Who reads it: :mod:`migrate.recovery.records`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from migrate import place
from migrate.events import log
from migrate.journal import lines, stored
from migrate.journal.entry import Entry
from migrate.journal.reach import Reach
from migrate.processes import identity


class Journal:
    """The journal of a migration that this process owns.

    :param network: path of the network namespace in which things are done, and undone; "": this host's.
    :param may: whether an entry of a kind may be written now, for who knows which step is under way.
    :raises FileExistsError: there is one of that id.
    :raises stored.NotOurs: the directory of all journals is not root's alone.
    """

    def __init__(
        self,
        migration_id: str,
        *,
        role: str,
        pid: int,
        other_host: str,
        reach: Reach | None = None,
        may: Callable[[type[Entry]], bool] | None = None,
        network: str = "",
    ) -> None:
        stored.make()
        self.directory = place.home(migration_id)
        self.directory.mkdir(mode=0o700)
        self.migration_id = migration_id
        self._lock = self._file = -1
        self._above = open_above(self.directory)
        self._held: list[int] = []
        self._may = may
        first = {"id": migration_id, "role": role, "pid": pid, "other_host": other_host}
        first |= {"version": lines.VERSION, "owner": identity.identity(os.getpid())}
        try:
            self._lock = take_lock(self.directory, create=True)
            self._file = _open(self.directory)
            first |= {"network": network} if network else {}
            self._write(first | ({"reach": reach.as_json()} if reach is not None else {}))
        except BaseException:  # nothing has been done yet, and nothing is left
            self.remove()
            raise

    def did(self, entry: Entry) -> None:
        """Note what is about to be done."""
        if self._may is not None and not self._may(type(entry)):
            log.unexpected(f"journalled in another step, or order: {entry.kind}")
        self._write(entry.line())

    def state(self, name: str, *, destination_pid: int = 0) -> None:
        """Note a state, and the process's number on the destination."""
        self._write({"state": name, "destination_pid": destination_pid})

    def end(self, outcome: str) -> None:
        """Close it: nothing is left to undo."""
        self._write({"end": outcome})

    def hold(self, *descriptors: int) -> None:
        """Have them open as long as this is ours."""
        self._held += descriptors

    def keep(self) -> None:
        """Put it back if its path does not lead to it any more. Where that cannot be, it is written on unseen."""
        if self._file < 0 or (data := lost(self._file, self.directory)) is None:
            return
        try:
            lock = put_back(self.directory, data)
            above, file = open_above(self.directory), _open(self.directory)
        except (OSError, stored.NotOurs) as error:
            log.tell("journal not seen", path=str(self.directory), why=str(error))
            return
        log.tell("journal removed", put_back=str(self.directory))
        # The guardian waits for the old lock. What it has open is not to be carried out any more.
        self._held.append(self._lock)
        os.ftruncate(self._file, 0)
        remove_covered(self._above, self.directory)
        os.close(self._file)
        os.close(self._above)
        self._lock, self._file, self._above = lock, file, above

    def read(self) -> bytes:
        """What it says, wherever its path leads."""
        return _content(self._file)

    def remove(self) -> None:
        """Forget it, and let go of the lock."""
        if self._file >= 0:
            os.ftruncate(self._file, 0)
        forget(self.directory)
        remove_covered(self._above, self.directory)
        self.abandon()

    def abandon(self) -> None:
        """Let go of the lock and leave the journal for the guardian or for ``--recover``."""
        for descriptor in (*self._held, self._file, self._above, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._above = self._lock = -1
        self._held = []

    def _write(self, line: dict[str, Any]) -> None:
        log.detail("journal", **line)
        self.keep()
        data = json.dumps(line).encode() + b"\n"
        before = os.fstat(self._file).st_size
        if os.write(self._file, data) != len(data):
            os.ftruncate(self._file, before)  # else the next line would be glued to this one
            raise OSError(errno.ENOSPC, "no space left for the journal", str(self.directory))


def _open(directory: Path) -> int:
    return os.open(directory / "journal", os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)


def open_above(directory: Path) -> int:
    """The directory of all journals, in which *directory* is: a descriptor, by which it is reached also later."""
    return os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def remove_covered(above: int, directory: Path) -> None:
    """Remove a journal that its path does not lead to; *above* is where it is. One that is seen is left alone."""
    with contextlib.suppress(OSError):
        if os.path.samestat(os.fstat(above), directory.parent.stat()):
            return
    shutil.rmtree(directory.name, dir_fd=above, ignore_errors=True)


def lost(file: int, directory: Path) -> bytes | None:
    """What a journal says, by its descriptor *file*, if somebody has removed it, or has mounted something over it.

    :return: None if *directory* leads to it, or it was forgotten.
    """
    with contextlib.suppress(OSError):
        if os.path.samestat(os.fstat(file), (directory / "journal").stat()):
            return None
    return _content(file) or None


def _content(file: int) -> bytes:
    return os.pread(file, min(os.fstat(file).st_size, stored.MOST_BYTES), 0)


def put_back(directory: Path, data: bytes) -> int:
    """Make a journal anew that says *data*, whole at once; the descriptor that holds its lock.

    :raises OSError, stored.NotOurs: that cannot be done.
    """
    stored.make()
    directory.mkdir(mode=0o700, exist_ok=True)
    lock, whole = take_lock(directory, create=True), directory / "journal.new"
    try:
        whole.write_bytes(data)
        whole.chmod(0o600)
        whole.rename(directory / "journal")
    except BaseException:
        whole.unlink(missing_ok=True)
        os.close(lock)
        raise
    return lock


def holds_lock(directory: Path, descriptor: int) -> bool:
    """Whether *descriptor* is that of the lock in *directory*, and not of one that was there before."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), (directory / "lock").stat())
    return False


def take_lock(directory: Path, *, wait: bool = False, create: bool = False) -> int:
    """Lock *directory* and return the descriptor that holds the lock until it is closed.

    :param wait: wait until the owner dies or lets go; else raise BlockingIOError when there is one.
    :param create: make the lock; only its owner does, so that one being removed does not come back.
    :raises FileNotFoundError: no such journal.
    """
    descriptor = os.open(directory / "lock", os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def owned(directory: Path) -> Generator[bool, None, None]:
    """Hold the lock of a journal meanwhile; False when somebody else has it, or there is none that can be held."""
    try:
        lock = take_lock(directory, create=_lost_its_lock(directory))
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        os.close(lock)


def _lost_its_lock(directory: Path) -> bool:
    """Whether the journal's lock is not there any more, and neither is the process that had it.

    A journal that is removed goes away at once, with its lock: see :func:`forget`.
    """
    if (directory / "lock").exists() or not (directory / "journal").exists():
        return False
    with contextlib.suppress(
        ValueError, stored.Damaged
    ):  # one that is damaged has an owner that nobody knows
        owner = lines.owner(lines.parse(stored.read(directory / "journal").partition(b"\n")[0]))
        return owner is None or not identity.alive(owner)
    return True


def all_of_this_host() -> Iterator[Path]:
    """The directories of every journal on this host, finished or not.

    :raises stored.NotOurs: the directory of all of them is not root's alone.
    """
    if stored.is_there():
        for directory in sorted(place.STATE.iterdir()):
            if place.valid_id(directory.name) and (directory / "journal").exists():
                yield directory


def forget(directory: Path) -> None:
    """Remove a journal that nobody needs any more; the caller holds its lock."""
    gone = directory.with_name(f".gone-{directory.name}")
    with contextlib.suppress(OSError):
        directory.rename(gone)  # at once: nobody finds half of it
    for left in (gone, directory):
        with contextlib.suppress(OSError):
            os.truncate(left / "journal", 0)  # for who has it open
        shutil.rmtree(left, ignore_errors=True)
