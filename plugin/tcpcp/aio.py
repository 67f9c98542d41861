"""Connections of asyncio's streams: what is in the streams' own buffers is passed along. Import it by name.

At the origin::

    leaving = await tcpcp.aio.detach(reader, writer)
    try:
        await tell(tcpcp.dumps(leaving.ici))            # until it has been created there
    except BaseException:
        reader, writer = await leaving.back()
        raise
    leaving.release()

At the destination, where a socket from :func:`tcpcp.create` is activated once the origin has released it::

    reader, writer = await tcpcp.aio.attach(tcpcp.create(ici))

A stream keeps bytes where TCP does not see them: received ones in the StreamReader, written ones in the
transport. The former are acknowledged, so they are put before what the kernel's receive queue holds, and
``copied_seq`` goes back by as many. The latter have never been in TCP's hands. Nobody but the transport can
take them out again, so it is made to: the send buffer is raised until the kernel takes all, where they are
what waits unsent, and then is what it was.

Only what asyncio documents or names without an underscore is used, so another event loop than asyncio's own
will do that keeps to it (tests/facts/test_aio.py has uvloop, where it is installed).

An event loop does not keep tasks from the garbage collector; asyncio's server keeps the one that serves a
connection until that connection ends, which for asyncio is when it is detached. So the task that calls ``detach``,
``back`` or ``attach`` is kept from then on until it is done, and any task that waits in one of the new streams as
long as their connection lives. Another one the program has to keep itself, as what ``asyncio.create_task`` returns:
the handler of a connection that a task of another kind detaches. Such a task is also the one that
``asyncio.wait_for`` makes before Python 3.12, and ``gather``: call ``detach`` under ``asyncio.timeout`` instead.

Source: paper sections 4.6 and 4.7; CPython's asyncio/streams.py (StreamReaderProtocol.connection_lost() lets the
task go) and selector_events.py; net/core/stream.c sk_stream_write_space() for what wakes the transport.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace

from tcpcp.endpoint import calls, first_namespace, handed_in, inspection, isolation, socket_options
from tcpcp.errors import (
    Expired,
    IsolationError,
    KernelError,
    PermissionDenied,
    TcpcpError,
    Unsupported,
    WrongArgument,
)
from tcpcp.kernel import tcp_repair
from tcpcp.record import checks
from tcpcp.record.ici import Ici
from tcpcp.record.option_names import OPTIONS

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

#: asyncio's own default for ``StreamReader(limit=...)``, in bytes.
LIMIT_BYTES = 2**16

_SEND_BUFFER, _LOCKS = OPTIONS["SO_SNDBUF"], OPTIONS["SO_BUF_LOCK"]
_UNSENT_LIMIT = OPTIONS["TCP_NOTSENT_LOWAT"]
_NO_LIMIT = -1

#: Tasks that nobody else may have any more, until they are done.
_kept: set[asyncio.Task[object]] = set()


class Detached:
    """A connection without streams, isolated until :meth:`release` or :meth:`back`; made by :func:`detach`.

    :ivar ici: the whole of it, with what was in the streams.

    The event loop renews the isolation while it runs. Dropped without either call, the connection is lost: its
    socket is closed, and the peer hears nothing for a minute; after that what it sends is answered with a reset.
    """

    def __init__(self, sock: socket.socket, ici: Ici, unread: bytes) -> None:
        self._sock, self._unread = sock, unread
        self.ici = replace(
            ici, receive_queue=replace(ici.receive_queue, data=unread + ici.receive_queue.data)
        )
        self._renewal = self._renew_later()

    def _renew_later(self) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        return loop.call_later(isolation.TIMEOUT_S / 3, _renew, weakref.ref(self))

    def renew(self) -> None:
        """What the event loop does from time to time."""
        try:
            calls.renew_many([self._sock])
        except IsolationError:
            pass  # two more tries in the minute
        except TcpcpError:
            return  # release() tells
        self._renewal = self._renew_later()

    def release(self) -> None:
        """The destination has it now: as :func:`tcpcp.release`, without a packet.

        :raises Expired: the isolation had run out (the event loop stood still for a minute): the ICI is void.
            :meth:`back` still works, but for a :class:`tcpcp.Moved` with ``lost_bytes``: then it has ended.
        :raises KernelError: likewise.
        """
        calls.release(self._sock)
        self._renewal.cancel()

    async def back(self, *, limit: int = LIMIT_BYTES) -> Streams:
        """Take it back, in new streams; the peer is sent nothing for its own sake.

        :param limit: of the new StreamReader, bytes.
        :return: what goes on with the byte at which the old streams stopped.
        :raises KernelError: it is reset, or still isolated.

        It runs from the begin of the call; where that is cancelled, it is closed.
        """
        self._renewal.cancel()
        with contextlib.suppress(Expired):  # nobody is to use the ICI any more, and the socket runs
            calls.resume(self._sock)
        return await _open(self._sock, self._unread, limit)


def _renew(detached: weakref.ref[Detached]) -> None:
    """The loop does not keep what nobody else has any more."""
    one = detached()
    if one is not None:
        one.renew()


async def detach(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Detached:
    """Take a connection out of its streams, and leave it isolated.

    :param reader, writer: a pair from asyncio, with neither ``sendfile`` nor ``start_tls`` under way.
    :raises Unsupported: TLS or no TCP; closed or closing; more is to be written than an ICI holds; what
        :func:`tcpcp.get` refuses.
    :raises KernelError: the connection was reset meanwhile; else as :func:`tcpcp.get`.

    After any error, and where the task is cancelled, the streams go on as before. Once this has returned the
    reader is at its end, which a task that still waits there sees too, and what is written goes nowhere.

    A half-closed connection stays one: that the peer has sent its FIN, or that ``write_eof`` was called, is
    in the kernel. (Under uvloop let the loop run between ``write_eof`` and this: it shuts down later.)

    It waits only where more is written than the kernel has room for, and then as long as it takes to copy. All
    else is one piece, in which the event loop stands still; 1 ms after :func:`tcpcp.prepare`.
    """
    return (await detach_many([(reader, writer)]))[0]


async def detach_many(streams: Sequence[Streams]) -> list[Detached]:
    """:func:`detach` for several connections under one isolation: all of them or, after an error, none."""
    socks: list[socket.socket] = []
    streams = [_pair(one) for one in handed_in.listed(streams, "pairs of streams")]
    try:
        for reader, writer in streams:
            _require_plain(reader, writer)
            socks.append(_dup(writer))
            inspection.require_tcp(socks[-1])  # before its options are set, which others have not
        await _flush_all(streams, socks)
        # No await from here on: what is flushed stays flushed, and nothing more is read.
        icis = calls.get_many(socks)
    except BaseException:
        for sock in socks:
            sock.close()
        raise
    unread = [_take_unread(reader) for reader, _ in streams]
    for _, writer in streams:
        writer.transport.abort()  # closes its number of the socket, which is open here still
    _keep_task()
    return list(map(Detached, socks, icis, unread))


async def attach(source: Ici | socket.socket, *, limit: int = LIMIT_BYTES) -> Streams:
    """Activate a connection and put it into streams.

    :param source: an ICI, or a socket that :func:`tcpcp.create` has made of one: by that, what can fail is
        done before the origin lets go.
    :param limit: of the StreamReader, bytes.
    :raises TcpcpError: of :func:`tcpcp.create`, for an ICI; of :func:`tcpcp.activate`. Nothing was sent. A
        socket made here is closed, one given is as it was.

    Where the call is cancelled once it has begun, the connection is closed.
    """
    if not isinstance(source, (Ici, socket.socket)):
        raise Unsupported(f"{source!r}: neither an ICI nor a socket")
    if isinstance(source, socket.socket):
        calls.activate(source)
        return await _open(source, b"", limit)
    sock = calls.create(source)
    try:
        calls.activate(sock)
    except BaseException:
        sock.close()  # in repair mode still: silent
        raise
    return await _open(sock, b"", limit)


async def _open(sock: socket.socket, unread: bytes, limit: int) -> Streams:
    """What ``asyncio.open_connection(sock=sock)`` does, with bytes in the reader before the socket's."""
    _keep_task()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit, loop)
    reader.feed_data(unread)
    protocol = _Protocol(reader, loop)
    sock.setblocking(False)
    transport, _ = await loop.create_connection(lambda: protocol, sock=sock)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


class _Protocol(asyncio.StreamReaderProtocol):
    """Keeps the reader, and so whoever waits there, as long as the connection lives.

    That of asyncio keeps the task of a server's connection, which we do not know, and the reader only weakly.
    """

    def __init__(self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self.kept_reader: asyncio.StreamReader | None = reader

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.kept_reader = None


def _keep_task() -> None:
    """Keep the calling task until it is done: perhaps only the connection that is detached here has kept it."""
    task = asyncio.current_task()
    if task is not None and task not in _kept:
        _kept.add(task)
        task.add_done_callback(_kept.discard)


def _pair(given: Streams) -> Streams:
    if not isinstance(given, tuple) or len(given) != 2:
        raise WrongArgument(f"not a pair of streams but {type(given).__name__}")
    if not hasattr(given[0], "exception") or not hasattr(given[1], "get_extra_info"):
        raise WrongArgument("neither of these is a pair of asyncio's: a StreamReader and a StreamWriter")
    return given


def _require_plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if writer.get_extra_info("ssl_object") is not None:
        raise Unsupported("the streams are TLS: its keys and what it holds back are not TCP's to pass")
    if writer.get_extra_info("socket") is None:
        raise Unsupported("the streams have no socket")
    if writer.is_closing() or reader.exception() is not None:
        raise Unsupported("the streams are closed, or about to be")


def _dup(writer: asyncio.StreamWriter) -> socket.socket:
    """The writer's socket, to be ours when the transport has closed its own number of it."""
    try:
        sock = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
    except OSError as exc:
        raise KernelError("dup", exc.errno or errno.EMFILE) from exc
    sock.setblocking(False)
    return sock


async def _flush_all(streams: Sequence[Streams], socks: Sequence[socket.socket]) -> None:
    """Returns when nothing is in any transport's buffer, and all are open still."""
    while waiting := [one for one in zip(streams, socks, strict=True) if _unwritten(one[0])]:
        for (_, writer), sock in waiting:
            await _flush(writer, sock)
    for reader, writer in streams:
        _require_plain(reader, writer)


def _unwritten(streams: Streams) -> int:
    return streams[1].transport.get_write_buffer_size()


async def _flush(writer: asyncio.StreamWriter, sock: socket.socket) -> None:
    transport = writer.transport
    size_bytes = tcp_repair.get_outq(sock) + transport.get_write_buffer_size()
    if size_bytes > checks.MAX_QUEUE_BYTES:
        raise Unsupported(f"{size_bytes} bytes wait to be sent, an ICI holds {checks.MAX_QUEUE_BYTES}")
    low, high = transport.get_write_buffer_limits()
    try:
        with _all_room(sock, size_bytes):
            transport.set_write_buffer_limits(0)
            await writer.drain()
    except OSError as exc:
        raise KernelError("send", exc.errno or errno.ECONNRESET) from exc
    finally:
        if not transport.is_closing():
            transport.set_write_buffer_limits(high, low)


@contextlib.contextmanager
def _all_room(sock: socket.socket, waiting_bytes: int) -> Iterator[None]:
    """The kernel takes whatever is written to *sock*; setting either limit wakes who waits to write.

    :raises PermissionDenied: it takes more than this program may have it take.
    """
    before = [sock.getsockopt(one.level, one.number) for one in (_UNSENT_LIMIT, _SEND_BUFFER, _LOCKS)]
    try:
        tcp_repair.set_int(sock, _UNSENT_LIMIT.level, _UNSENT_LIMIT.number, _NO_LIMIT, _UNSENT_LIMIT.name)
        if not first_namespace.set_size(sock, "SO_SNDBUF", first_namespace.LARGEST_BUFFER):
            _require_room(sock, waiting_bytes)
        yield
    finally:
        unsent_limit, size_bytes, locks = before
        tcp_repair.set_int(sock, _UNSENT_LIMIT.level, _UNSENT_LIMIT.number, unsent_limit, _UNSENT_LIMIT.name)
        first_namespace.set_size(sock, "SO_SNDBUF", size_bytes // 2)  # the kernel doubles what is set
        socket_options.set_buffer_locks(sock, locks)


def _require_room(sock: socket.socket, waiting_bytes: int) -> None:
    if sock.getsockopt(_SEND_BUFFER.level, _SEND_BUFFER.number) < first_namespace.queue_bytes(waiting_bytes):
        raise PermissionDenied(
            f"{tcp_repair.describe(sock)}: {waiting_bytes} bytes wait to be sent, more than net.core.wmem_max "
            "allows everybody: CAP_NET_ADMIN is missing in the first user namespace, which this takes"
        )


def _take_unread(reader: asyncio.StreamReader) -> bytes:
    """What is in the reader's buffer: that is what read() returns without waiting.

    So its coroutine is run by hand, up to the point where it would wait.
    """
    reading = reader.read(sys.maxsize)
    try:
        reading.send(None)
    except StopIteration as done:
        return bytes(done.value)
    except RuntimeError:  # another task waits there, so there is nothing
        return b""
    finally:
        reading.close()
    return b""
