"""Ctrl-C, SIGTERM and the like as one clean error, raised where the driver can stand it.

    with handled():                # by cli.py; a signal raises Interrupted at once, wherever we are
        connect, check
        with at_checkpoints():     # from the freeze to the end: only check() raises, and what calls it
            freeze, dump, stream
            with held():           # an undo, and everything after COMMIT: nothing raises
                undo

Only the first signal ever raises; a second Ctrl-C cannot break the rollback that the first one began.
"""

from __future__ import annotations

import contextlib
import enum
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from migrate.errors import MigrateError

#: Those that end a program that does nothing about them, and that somebody sends: kill(1), a terminal, a manager.
SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
#: What a terminal stops a job with. While a process is frozen for us, we do not stand still.
STOPS = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


class Interrupted(MigrateError):
    """The user, or the system, asked this program to stop."""

    usual_hint = ""


class _Mode(enum.IntEnum):
    AT_ONCE = 0
    AT_CHECKPOINTS = 1
    HELD = 2


class _State:
    mode = _Mode.AT_ONCE
    pending: signal.Signals | None = None
    raised = False


_state = _State()


@contextlib.contextmanager
def handled(*, last: bool = False) -> Iterator[None]:
    """Handle the signals as this module says; puts the handlers before back. Main thread only.

    :param last: the program ends after the block: the signals are ignored from then on. The report has been
        said, and a signal that still ended the interpreter would make another exit status of it.
    """
    before = {number: signal.signal(number, _on_signal) for number in SIGNALS}
    stops = {number: signal.getsignal(number) for number in STOPS}
    _state.mode, _state.pending, _state.raised = _Mode.AT_ONCE, None, False
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if last else handler)
        for number, handler in stops.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def at_checkpoints() -> Iterator[None]:
    """Let signals raise at :func:`check` only, also after the block: what was frozen must be reported.

    A signal that nobody has checked for by its end stays pending. Those of a terminal that stop a job are ignored
    from now on, until :func:`handled` ends.
    """
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    _state.mode = max(_state.mode, _Mode.AT_CHECKPOINTS)
    yield


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Let signals raise nowhere; they stay pending (see :func:`requested`)."""
    before, _state.mode = _state.mode, _Mode.HELD
    try:
        yield
    finally:
        _state.mode = before


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Within :func:`held`: a migration of its own, in which signals raise as in one that is alone.

    :raises Interrupted: if one has come before.
    """
    before, _state.mode = _state.mode, _Mode.AT_ONCE
    try:
        check()
        yield
    finally:
        _state.mode = before


def check() -> None:
    """Raise the pending interruption, unless it was raised before, is held, or this is another thread.

    :raises Interrupted: once.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if _state.pending is not None and not _state.raised and _state.mode != _Mode.HELD:
        _state.raised = True
        raise Interrupted(f"stopped by {_state.pending.name}")


def requested() -> bool:
    """Return whether a signal has arrived, raised or not."""
    return _state.pending is not None


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _state.pending is None:
        _state.pending = signal.Signals(number)
    if _state.mode == _Mode.AT_ONCE:
        check()
