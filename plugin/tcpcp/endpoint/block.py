"""A ``with`` block around handing over: got at its begin, released at its end, resumed after any exception."""

from __future__ import annotations

import atexit
import contextlib
import threading
from collections.abc import Iterable, Sequence
from types import TracebackType

from tcpcp.endpoint import calls, handed_in, isolation, own_lock
from tcpcp.endpoint.handed_in import HasFileno
from tcpcp.endpoint.own_thread import OwnThread
from tcpcp.endpoint.uninterrupted import Uninterrupted
from tcpcp.errors import AlreadyGot, Expired, IsolationError, Moved, TcpcpError
from tcpcp.record.ici import Ici


def passing(socks: Iterable[HasFileno | tuple[int, HasFileno]]) -> Passing:
    """Hand connections over in the body of a ``with``::

        with tcpcp.passing([sock]) as [ici]:
            channel.sendall(tcpcp.dumps(ici))
            wait_until_created(channel)       # whatever goes wrong here, the connection goes on here
        channel.sendall(b"go")                # from here on it is the destination's alone

    :param socks: what :func:`tcpcp.get_many` takes: sockets, also when there is only one, or pairs of tag and
        socket.
    :return: gives the ICIs to the body, in the same order.
    :raises TcpcpError: of :func:`tcpcp.get_many`, before the body: all are as before. Likewise ``KernelError`` with
        EAGAIN: this host has no room for the thread below.
    :raises Expired: at the end of the body: the isolation had run out, or (:class:`tcpcp.Moved`, which is one) a
        thread that was in the middle of a call has read or written since. So the ICIs are void: all go on here that
        the body has not dealt with itself; what was created from the ICIs must be released there.
    :raises KernelError: at the end of the body: one socket could not be released, its number closed meanwhile,
        say. All the others are released, and the destination may go on with all. Likewise the other errors
        of :func:`tcpcp.release_many` that are not :class:`Expired`: ``NotGot`` and ``Unsupported`` (below).

    While the body runs a thread renews the isolation every third of
    :data:`tcpcp.endpoint.isolation.TIMEOUT_S`, so a body may take as long as the connections' peers have
    patience. A body may resume, release or close one of them itself: the others stay isolated, and are
    released at the end, which says of that one :class:`NotGot`, where it runs, or :class:`Unsupported`: it is
    closed, which a socket is too that was released.

    After any exception of the body (a KeyboardInterrupt, a cancelled task, a closed generator too) all are
    resumed, none of them with a packet for its own sake, and the exception goes on. Where one could not be
    resumed, a note on it says why; the others are resumed all the same.

    Source: paper section 2, steps 1 to 8; what may fail before the destination has confirmed leads back.
    """
    return Passing(handed_in.listed(socks))


class Passing:
    """See :func:`passing`; for one ``with`` statement.

    A handler may raise between any two steps of this, also where it begins and ends. What holds signals off and
    what lets them through is therefore the first and the last step that can raise: from the last one of
    :meth:`__enter__` to the body Python looks for no signal. Where it does before the first step of
    :meth:`__exit__`, a moment of 100 ns, the sockets are resumed when the exception is dropped, by
    :meth:`__del__`.
    """

    def __init__(self, entries: list[HasFileno | tuple[int, HasFileno]]) -> None:
        self._held = self._entered = False
        self._entries = handed_in.entries(entries)
        self._socks = [sock for _, sock in self._entries]
        self._quiet, self._renewal = Uninterrupted(), Renewal(self._socks)

    def __enter__(self) -> list[Ici]:
        if self._entered:
            raise AlreadyGot("this block was entered before; passing() makes one for each with statement")
        self._entered = True
        self._quiet.__enter__()
        try:
            icis = calls.get_many(self._entries)
            self._held = True
            self._renewal.start()
            self._quiet.let()
            return icis
        except BaseException as exc:
            self._back(exc)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not own_lock.is_held():
                self._quiet.hold()
            if error is None:
                self._renewal.end()
        except BaseException as exc:
            self._back(exc)
            raise
        if error is not None:
            self._back(error)
            return
        try:
            self._held = False
            _release_all(self._socks)
        finally:
            self._quiet.__exit__(None, None, None)

    def _back(self, error: BaseException) -> None:
        """All run again; *error* is on its way.

        The garbage collector may have come upon a block that nobody ends, a generator's or a coroutine's, in the
        middle of another call, which has what this needs: so it is done beside that, as soon as it can be.
        """
        if own_lock.is_held():
            self._back_later(error)
        else:
            self._back_now(error)

    def _back_later(self, error: BaseException) -> None:
        def back() -> None:
            try:
                self._back_now(error)
            finally:
                atexit.unregister(later.finish)

        later = OwnThread("tcpcp resumes", back)
        atexit.register(later.finish)
        later.start()

    def _back_now(self, error: BaseException) -> None:
        self._quiet.hold()
        try:
            self._renewal.stop()
            if self._held:
                self._held = False
                _resume_all(self._socks, error)
        finally:
            self._quiet.__exit__(None, None, None)

    def __del__(self) -> None:
        if self._held:
            self._back(RuntimeError())


def _resume_all(socks: Sequence[HasFileno], error: BaseException) -> None:
    """Make every one of *socks* run that can; *error* is on its way and learns what could not."""
    try:
        calls.resume_many(socks)
    except TcpcpError as exc:
        error.add_note(f"and in resuming: {exc}")
        for sock in socks:
            try:
                calls.resume(sock)
            except Expired as late:
                error.add_note(f"and in resuming: {late}")
            except TcpcpError:
                pass  # it runs by now, or the body has closed it


def _release_all(socks: Sequence[HasFileno]) -> None:
    try:
        _release(socks)
    except Expired as exc:
        if not (isinstance(exc, Moved) and exc.lost_bytes):  # then they have ended
            _resume_all(socks, exc)
        raise


def _release(socks: Sequence[HasFileno]) -> None:
    try:
        calls.release_many(socks)
    except Expired:
        raise
    except TcpcpError:
        _renew_each(socks)  # before one is gone: has the isolation of another run out?
        for sock in socks:
            with contextlib.suppress(TcpcpError):  # the first one is told
                calls.release(sock)
        raise


def _renew(socks: Sequence[HasFileno]) -> None:
    try:
        calls.renew_many(socks)
    except (Expired, IsolationError):
        raise
    except TcpcpError:
        _renew_each(socks)


def _renew_each(socks: Sequence[HasFileno]) -> None:
    """Those that are got still: the body has dealt with one itself.

    :raises Expired: as :func:`tcpcp.renew`.
    """
    for sock in socks:
        try:
            calls.renew(sock)
        except Expired:
            raise
        except TcpcpError:
            continue


class Renewal:
    """Keeps *socks*, which are got, isolated between :meth:`start` and :meth:`stop`.

    The thread is of the network namespace of the one that makes it, as a socket that is got is.
    """

    def __init__(self, socks: Sequence[HasFileno]) -> None:
        self._socks = socks
        self._over = threading.Event()
        self._expired: Expired | None = None
        self._thread = OwnThread("tcpcp renews", self._run)

    def start(self) -> None:
        """:raises KernelError: this host has no room for another thread."""
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def end(self) -> None:
        """:raises Expired: for once it could not, and packets came through."""
        self.stop()
        if self._expired is not None:
            raise self._expired

    def _run(self) -> None:
        while not self._over.wait(isolation.TIMEOUT_S / 3):
            try:
                _renew(self._socks)
            except Expired as exc:
                self._expired = exc
                return
            except IsolationError:
                continue  # two more tries in the minute; after that it has expired, which release tells
