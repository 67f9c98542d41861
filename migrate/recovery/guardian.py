"""A process that waits for its driver or agent to die, and settles what it left.

``python -m migrate.recovery.guardian DIRECTORY [DESCRIPTOR...]`` waits for the lock of a journal. The kernel
gives it away when the owner ends, however it ends. A journal that is gone by then was the normal end; what
becomes of another one is decided in :mod:`migrate.recovery.settle`. The descriptors are the packet sockets of
the driver: they live as long as either of the two, so that what the peers sent while nobody could answer is
there for whoever undoes.

A driver that is stopped (SIGSTOP) ends no gap. So the guardian is told on its standard input when the gap has to
be over, and from then on it continues the driver, which rolls back by itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from migrate import interrupt, limits, place, threads
from migrate.errors import MigrateError
from migrate.events import log
from migrate.gap.capture import Capture
from migrate.journal import journal
from migrate.pb import session_pb2 as pb
from migrate.processes import identity, network
from migrate.recovery.entries import Switch
from migrate.recovery.records import Record
from migrate.recovery.settle import Settled, Verdict, settle_safely
from migrate.states import Outcome

READY = b"ready\n"
#: When the addresses are announced again after a rollback that the destination may have noticed later than
#: this host; seconds after the first time. It goes on for longer than a destination can have the addresses: it
#: renews its lease until the link has been silent for too long (limits.SILENCE_S), and then it ends by itself
#: (migrate.switch.address.destination.LEASE_S).
AGAIN_S = (0.5, 1, 2, 4, 6, 8, 10, 12, 14)
#: And how often after that, until the destination has confirmed its undo: its clock may have stood still, too.
LATER_S = 10


class Guardian:
    """A guardian process for the journal in *directory*, running when the constructor returns.

    :param caught: descriptors of the origin's :class:`migrate.gap.capture.Capture`.
    :raises MigrateError: it did not start; nothing must be touched then.
    """

    def __init__(self, directory: Path, caught: Sequence[int] = ()) -> None:
        with network.home():  # it asks the other host, too
            self._process = subprocess.Popen(
                [sys.executable, "-m", "migrate.recovery.guardian", str(directory), *map(str, caught)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                pass_fds=caught,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait until it watches; it is started early and awaited late."""
        stdout = self._process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], limits.GUARDIAN_START_S)
        if not ready or os.read(stdout.fileno(), len(READY)) != READY:
            self._process.kill()
            raise MigrateError("the guardian did not start")
        stdout.close()

    def expect_end(self, gap_until: float) -> None:
        """The gap has to be over then, on the monotonic clock; whether the guardian lives shows :meth:`check`."""
        self._tell(b"until", b"%f" % gap_until)

    def hold_images(self, directory: Path) -> None:
        """It needs the images in *directory* as long as it lives, see :func:`migrate.place.make_images`."""
        self._tell(b"images", os.fsencode(directory))

    def _tell(self, word: bytes, value: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            os.write(self._process.stdin.fileno(), word + b" " + value + b"\n")

    def lives(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def check(self) -> None:
        """Return while it lives.

        :raises MigrateError: it has ended: nobody would undo what we leave if we died.
        """
        if (status := self._process.poll()) is None:
            return
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        raise MigrateError(
            f"the guardian (process {self._process.pid}) {how}",
            hint="Look for what ended it (the kernel's log says whether memory ran out), and try again.",
        )

    def wait_end(self) -> None:
        """Reap it; the journal has been removed."""
        try:
            self._process.wait(timeout=limits.GUARDIAN_START_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def announce_again(record: Record) -> None:
    """Say again and again that this host has its addresses, as long as it has them, until nobody doubts it.

    A destination that lost its agent or the link withdraws them by itself, perhaps later than we announced
    them: a neighbour that asked in between may have got its answer. So we go on until the destination has confirmed
    that nothing runs there, at most for limits.UNCONFIRMED_S.
    """
    if not record.named(Switch):
        return
    began = time.monotonic()
    for due_s in AGAIN_S:
        time.sleep(max(0.0, began + due_s - time.monotonic()))
        _remind(record)
    while not _confirmed(record) and time.monotonic() < began + limits.UNCONFIRMED_S:
        time.sleep(LATER_S)
        _remind(record)


def _remind(record: Record) -> None:
    for entry in record.of(Switch):
        with contextlib.suppress(MigrateError, OSError), network.within(record.network):
            entry.remind()


def _confirmed(record: Record) -> bool:
    """Whether the destination says that nothing of it is there any more."""
    from migrate.recovery import doubt

    with contextlib.suppress(MigrateError, OSError):
        return doubt.ask(record, wait_s=0.0).where == pb.Answer.NOT_HERE
    return False


def _keep_going(driver: identity.Identity) -> None:
    """Continue *driver*, whenever it is stopped, from when its gap has to be over until it ends.

    Before that it says which images are needed: they are held as long as we live.
    """
    for word, value in _told():
        if word == b"images":
            with contextlib.suppress(OSError):
                place.hold_images(Path(os.fsdecode(value)))
        else:
            _continue(driver, float(value))


def _told() -> Iterator[tuple[bytes, bytes]]:
    """What the driver says, until it ends: a word, and its value."""
    # Not by sys.stdin, whose lock a thread that waits in it holds: the end of this program would wait for that.
    said = b""
    while more := os.read(0, 4096):
        *lines, said = (said + more).split(b"\n")
        for line in lines:
            word, _, value = line.partition(b" ")
            yield word, value


def _continue(driver: identity.Identity, gap_until: float) -> None:
    time.sleep(max(0.0, gap_until - time.monotonic()))
    while identity.alive(driver):
        with contextlib.suppress(ProcessLookupError):
            if identity.state(driver[0]) == "T":
                identity.send(driver, signal.SIGCONT)
        time.sleep(limits.STOPPED_LOOK_S)


def main() -> int:
    """The guardian's life."""
    directory = Path(sys.argv[1])
    log.called("migrate-guardian")
    driver = identity.identity(os.getppid())
    threads.start(threading.Thread(target=_keep_going, args=(driver,), daemon=True))
    for number in (*interrupt.SIGNALS, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    try:
        above = journal.open_above(directory)
        file = os.open(directory / "journal", os.O_RDWR | os.O_CLOEXEC)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    os.write(1, READY)
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 1)
    try:
        lock, unseen = _wait(directory, file, lock)
    except FileNotFoundError:
        return 0
    capture = Capture(descriptors=map(int, sys.argv[2:])) if sys.argv[2:] else None
    settled = settle_safely(directory, capture, unseen)
    if unseen is None or (settled is not None and settled.over):
        journal.remove_covered(above, directory)
    os.close(lock)
    if capture is not None:
        capture.close()
    if settled is not None and _came_back(settled):
        announce_again(settled.record)
    return 0


def _wait(directory: Path, file: int, lock: int) -> tuple[int, bytes | None]:
    """Wait for the end of who has the journal, and put it back if its path does not lead to it any more.

    :param file: the journal, opened. :param lock: its lock, likewise. :raises FileNotFoundError: it was forgotten.
    :return: what holds its lock; where it could not be put back, what it says.
    """
    fcntl.flock(lock, fcntl.LOCK_EX)
    if (data := journal.lost(file, directory)) is not None:
        try:
            return journal.put_back(directory, data), None
        except (OSError, MigrateError) as error:
            log.unexpected(f"the journal of migration {directory.name} is not where it was: {error}")
            return lock, data
    while not journal.holds_lock(directory, lock):  # its owner has put it back
        os.close(lock)
        lock = journal.take_lock(directory, wait=True)
    return lock, None


def _came_back(settled: Settled) -> bool:
    """Whether the addresses are here again, rolled back by us or by a driver that left the rest to us."""
    undone = settled.verdict in (Verdict.ROLLED_BACK, Verdict.DIED)
    rolled_back = undone or settled.record.end == Outcome.ROLLED_BACK.value
    return rolled_back and settled.record.role == "origin"


if __name__ == "__main__":
    sys.exit(main())
