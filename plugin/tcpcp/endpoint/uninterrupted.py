"""Signals wait while a call of the library is under way.

An exception of a handler in its middle would leave a socket changed that nobody remembers.

Only in the main thread, where Python runs handlers. Its mask is enough in a program of one thread. Among several
the kernel gives a signal to another one, and Python runs the handler in the main thread all the same: there the
handlers are put off as well (:class:`_PutOff`). The library's own threads take no signals: :func:`start`. A child
that another thread forks meanwhile has the program's handlers: :func:`_in_child`.

The mask is changed by libc's own function: Python's gives the mask of before as a set with an object for each of
60 signals, which takes 30 us of the time for which a connection stands still.
"""

from __future__ import annotations

import _thread
import ctypes
import errno
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

from tcpcp.errors import KernelError

#: sigset_t of glibc and of musl; the kernel's has 8 or 16.
_MASK_BYTES = 128
#: struct sigaction of both, which holds a mask, the handler, flags and a restorer.
_ACTION_BYTES = _MASK_BYTES + 3 * 8
#: Real-time signals too; without the two that glibc keeps for itself.
_SIGNALS = sorted(signal.valid_signals())

_libc = ctypes.CDLL(None, use_errno=True)
_libc.pthread_sigmask.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p]
_libc.sigaction.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p]


def _full() -> bytes:
    mask = ctypes.create_string_buffer(_MASK_BYTES)
    _libc.sigfillset(mask)
    return mask.raw


_ALL = _full()


def _current() -> bytes:
    """The mask of this thread."""
    mask = ctypes.create_string_buffer(_MASK_BYTES)
    _check(_libc.pthread_sigmask(signal.SIG_BLOCK, None, mask))
    return mask.raw


def _set(mask: bytes) -> None:
    """Where that lets a signal through that waits, its handler runs at the latest when this returns."""
    _check(_libc.pthread_sigmask(signal.SIG_SETMASK, mask, None))


def _check(error: int) -> None:
    if error:
        raise OSError(error, os.strerror(error))


def _alone() -> bool:
    """Whether this program has one thread, also of those that Python does not know.

    Source: the links of the directory, proc_task_getattr() in fs/proc/base.c.
    """
    try:
        return os.stat("/proc/self/task").st_nlink == 3  # noqa: PTH116  (a microsecond, not ten)
    except OSError:  # /proc is not mounted
        return False


_Handler = Callable[[int, FrameType | None], object]


def _action(number: int) -> bytes:
    """The kernel's part of signal *number*: flags and mask."""
    action = ctypes.create_string_buffer(_ACTION_BYTES)
    _libc.sigaction(number, None, action)
    return action.raw


def _swap(number: int, handler: _Handler, action: bytes) -> None:
    """Make *handler* Python's for signal *number*, and leave the kernel's part of it as it is: *action*.

    ``signal.signal`` alone forgets SA_RESTART (signal.siginterrupt()) and the mask.
    """
    try:
        signal.signal(number, handler)
    finally:  # it may come at once, and its handler raise
        _libc.sigaction(number, action, None)


class _PutOff:
    """Stands in for each of the program's handlers, remembers what came, and calls the handlers once it may.

    It calls them itself. Were the signal raised anew, the descriptor of signal.set_wakeup_fd(), by which asyncio
    knows of signals, would be written to a second time; and a signal that only other threads of the program let
    through would wait in this one for ever.

    One that could not be given back (the kernel refused it) calls the program's own until the next context.

    :ivar thread: whose context it is.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, _Handler] = {}
        #: What the kernel had of each: a child may be forked between the two calls that give a handler back.
        self._actions: dict[int, bytes] = {}
        #: With the process that each came to: a child has its parent's copied.
        self._came: dict[int, tuple[int, FrameType | None]] = {}
        self._waits = False
        self.thread = threading.get_ident()

    def begin(self) -> None:
        """A handler that is not put off yet may raise here; then :meth:`end` is due all the same."""
        self._waits = True
        _begun.append(self)
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if isinstance(handler, _PutOff):
                if handler._waits:  # that of a context around this one
                    continue
                handler = handler._handlers[number]
            if callable(handler) and not isinstance(handler, signal.Handlers):
                self._handlers[number], self._actions[number] = handler, _action(number)
                _swap(number, self, self._actions[number])

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._waits:
            self._came[number] = os.getpid(), frame
        else:
            self._handlers[number](number, frame)

    def let(self) -> None:
        """What comes from now on is not put off; :meth:`call` is due when the thread's mask is as before."""
        self._waits = False

    def hold(self) -> None:
        """After :meth:`let`."""
        self._waits = True

    def end(self) -> None:
        """Give all handlers back; :meth:`call` is due as after :meth:`let`."""
        self.let()
        try:
            self._give_back(list(self._handlers.items()))
        finally:
            _begun.remove(self)

    def _give_back(self, handlers: list[tuple[int, _Handler]]) -> None:
        """One that is the program's again may run at once, and raise: the others are given back all the same."""
        try:
            while handlers:
                number, handler = handlers[-1]
                if signal.getsignal(number) is self:
                    _swap(number, handler, _action(number))
                handlers.pop()
        except OSError:
            handlers.pop()
            raise
        finally:
            if handlers:
                self._give_back(handlers)

    def call(self) -> None:
        """Call the handlers of what came: all of them, also where one raises."""
        try:
            while self._came:
                number, (process, frame) = self._came.popitem()
                if process == os.getpid():
                    self._handlers[number](number, frame)
        finally:
            if self._came:
                self.call()

    def leave_to_child(self) -> None:
        """All signals are the program's again, as they were when this began."""
        self.let()
        for number, handler in self._handlers.items():
            if signal.getsignal(number) in (self, handler):
                _swap(number, handler, self._actions[number])
        self.call()


#: Those that have begun and not ended.
_begun: list[_PutOff] = []


def _in_child() -> None:
    """A context of a thread that is not there any more would never end. That of the one that forked goes on.

    The mask is that of the thread that forked, as always: no context of another one has changed it.
    """
    others = [one for one in _begun if one.thread != threading.get_ident()]
    for one in reversed(others):
        _begun.remove(one)
        one.leave_to_child()


os.register_at_fork(after_in_child=_in_child)


class Uninterrupted:
    """A context in which no handler runs; those of signals that came meanwhile run at its end. May be nested."""

    __slots__ = ("_before", "_put_off")

    def __init__(self) -> None:
        self._before: bytes | None = None
        self._put_off: _PutOff | None = None

    def __enter__(self) -> Uninterrupted:
        if threading.current_thread() is threading.main_thread():
            self._before = _current()
            try:
                _set(_ALL)  # runs the handler of one that came just before
                if not _alone():
                    self._put_off = _PutOff()
                    self._put_off.begin()
            except BaseException:
                self._end()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self._before is None:
            return
        try:
            if self._put_off is not None:
                self._put_off.end()
        finally:
            self._go_on(self._before)

    def let(self) -> None:
        """Within the context: handlers run as before, those of signals that came meanwhile in this call."""
        if self._before is None:
            return
        if self._put_off is not None:
            self._put_off.let()
        self._go_on(self._before)

    def _go_on(self, mask: bytes) -> None:
        try:
            _set(mask)
        finally:
            if self._put_off is not None:
                self._put_off.call()

    def hold(self) -> None:
        """After :meth:`let`: none runs again until the context ends, or the next :meth:`let`."""
        if self._before is not None:
            _set(_ALL)
            if self._put_off is not None:
                self._put_off.hold()


def start(run: Callable[[], object]) -> None:
    """Begin *run* in another thread, which no signal is given to: else its handler would run in the middle all the
    same, in a program of one thread until now.

    It does not wait for the thread: with all signals held off nobody could end that. One whose first lines find no
    memory is gone without a word.

    :raises KernelError: this host has no room for another thread.
    Source: CPython thread_PyThread_start_new_thread(): a bare RuntimeError; man pthread_create(3) EAGAIN.
    """
    before = _current()
    try:
        _set(_ALL)
        _begin(run)
    finally:
        _set(before)


def _begin(run: Callable[[], object]) -> None:
    try:
        _thread.start_new_thread(run, ())
    except (RuntimeError, MemoryError) as exc:
        raise KernelError("pthread_create", errno.EAGAIN) from exc
