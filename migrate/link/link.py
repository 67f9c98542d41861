"""The session between origin and destination over one byte stream: messages, liveness, order of sending.

Both sides use the same class. Three threads serve it:

- the *reader* decodes frames into a queue;
- the *writer* alone writes, so that an exception raised in a caller (Ctrl-C) never cuts a frame in two;
  control messages overtake bulk ones, and a Ping goes out when nothing else did for a while;
- the *watch* notices that the other side has been silent for too long and closes the stream, which also frees
  a reader or writer that hangs in it.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from migrate import limits
from migrate.errors import MigrateError, ProtocolError, TransportError
from migrate.link import failure, frames
from migrate.link.clock import Clocks
from migrate.link.questions import Questions
from migrate.link.stream import Stream
from migrate.pb.session_pb2 import Failure, Frame, Ping

_READ_BYTES = 256 << 10
_BULK_KINDS = frozenset({"image", "copy"})
_MAX_BULK_QUEUED = 4
_MAX_RECEIVED = 64

# The messages by their field in Frame; FileChunk has two, so its sender says which.
_KIND_OF = {
    field.message_type.full_name: field.name
    for field in Frame.DESCRIPTOR.fields
    if field.message_type is not None and field.name not in _BULK_KINDS
}

M = TypeVar("M", bound=Message)


class Link:
    """Messages both ways over *stream*, until one side closes it or falls silent.

    :param role: the other side, named in errors: ``"origin"`` or ``"destination"``.
    :param silence_s: the link counts as lost when nothing arrived for so long, from the first byte on: how long
        the other side may take to start is for who waits for its first message.
    :param explain: called when the stream has ended: a better error than "the stream ended", e.g. with the
        exit status of the agent; or None.
    :param checkpoint: called now and then by send, flush and receive while they wait, without any lock held;
        may raise to end the wait (see :mod:`migrate.interrupt`).
    :param now_ns: our clock, for the stamps of frames.
    :ivar clocks: how far the other side's clock is ahead of ours.
    :ivar lost: set when the link is lost: ended without our close() and without a Goodbye from there.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        role: str = "destination",
        silence_s: float = limits.SILENCE_S,
        ping_s: float = limits.PING_S,
        explain: Callable[[], MigrateError | None] | None = None,
        checkpoint: Callable[[], None] | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.clocks = Clocks(now_ns)
        self._stream = stream
        self._role = role
        self._silence_s = silence_s
        self._ping_s = ping_s
        self._explain = explain
        self._checkpoint = checkpoint
        self._changed = threading.Condition()
        self._received: collections.deque[tuple[str, Message, int]] = collections.deque()
        self._questions = Questions()
        self._control: collections.deque[bytes] = collections.deque()
        self._bulk: collections.deque[bytes] = collections.deque()
        self._writing = False
        self._heard_at: float | None = None
        self._reader_waits = False
        self._goodbye = False
        self._closing = False
        self._end: MigrateError | None = None
        self._over = threading.Event()
        self._callbacks: list[Callable[[MigrateError], None]] = []
        self.lost = threading.Event()
        self._threads = [
            threading.Thread(target=run, name=f"link-{run.__name__.strip('_')}", daemon=True)
            for run in (self._read, self._write, self._watch)
        ]
        for thread in self._threads:
            thread.start()

    # --- sending -----------------------------------------------------------------------------------------

    def send(self, message: Message, *, kind: str = "", timeout_s: float | None = None) -> None:
        """Queue *message*; it is sent in the background.

        A control message returns at once and overtakes bulk ones (the kinds ``image`` and ``copy``), which
        wait while a few are queued. :meth:`flush` waits until all has been handed to the stream.

        :param kind: needed for a FileChunk only: ``"image"`` or ``"copy"``; its data is at most
            ``wire.CHUNK_BYTES``.
        :param timeout_s: how long a bulk message may wait; None: until the link is lost.
        :raises TransportError: the link is lost or closed, or the time is over; the message was not sent.
        :raises MigrateError: (bulk only) the Failure that the other side has reported meanwhile.
        """
        name = kind or _KIND_OF.get(message.DESCRIPTOR.full_name, "")
        if not name:
            raise ValueError(f"{message.DESCRIPTOR.full_name} needs a kind")
        fields: dict[str, Any] = {name: message}
        data = frames.encode(
            Frame(stamp=self.clocks.stamp(), question=self._questions.number(name), **fields)
        )
        if name in _BULK_KINDS:
            if len(data) > frames.CHUNK_BYTES + 8192:
                raise ValueError(f"a chunk of {len(data)} bytes; split it to {frames.CHUNK_BYTES}")
            self._send_bulk(data, timeout_s)
        else:
            self._send_control(data)

    def flush(self, *, timeout_s: float) -> None:
        """Wait until everything queued has been handed to the stream.

        :raises TransportError: the link is lost, or *timeout_s* is over; some was not sent.
        """

        if not self._wait(self._flushed, timeout_s):
            raise self._late(f"could not be sent everything within {timeout_s:g} s")
        self._raise_end()

    def _flushed(self) -> bool:
        return self._end is not None or not (self._control or self._bulk or self._writing)

    def _send_control(self, data: bytes) -> None:
        with self._changed:
            self._raise_end()
            self._control.append(data)
            self._changed.notify_all()

    def _send_bulk(self, data: bytes, timeout_s: float | None) -> None:
        def ready() -> bool:
            return self._end is not None or self._failed() or len(self._bulk) < _MAX_BULK_QUEUED

        if not self._wait(ready, timeout_s):
            raise self._late(f"took no image data for {timeout_s:g} s")
        with self._changed:
            if self._failed():
                raise self._take_failure()
            self._raise_end()
            self._bulk.append(data)
            self._changed.notify_all()

    def _wait(self, ready: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait for *ready*, with the checkpoint called between slices of the time; False if it is over."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            slice_s = left_s
            if self._checkpoint is not None:
                self._checkpoint()
                slice_s = limits.HEED_S if left_s is None else min(left_s, limits.HEED_S)
            with self._changed:
                if self._changed.wait_for(ready, slice_s):
                    return True
            if deadline is not None and time.monotonic() >= deadline:
                return False

    def _raise_end(self) -> None:
        if self._end is not None:
            # A copy, since each raise adds to an exception's traceback and notes.
            raise copy.copy(self._end)

    # --- receiving ---------------------------------------------------------------------------------------

    def receive(self, *kinds: str, timeout_s: float, discard: bool = False) -> Message:
        """Wait for the next message and return it; it must be of one of *kinds* (fields of Frame).

        :param discard: throw messages of other kinds away, failures too; for an undo that waits for its
            answer behind whatever was under way.
        :raises MigrateError: the other side reported a Failure: an error of the class it names.
        :raises TransportError: the link is lost, or nothing came within *timeout_s*.
        :raises ProtocolError: a message of another kind came, or an answer to something else than our last
            question. It is gone; the link stays as it is.
        """
        return self.receive_kind(*kinds, timeout_s=timeout_s, discard=discard)[1]

    def expect(self, cls: type[M], *, timeout_s: float, discard: bool = False) -> M:
        """:meth:`receive` for a single kind, given by its class (not for FileChunk, which has two kinds)."""
        kind = _KIND_OF[cls.DESCRIPTOR.full_name]
        message = self.receive(kind, timeout_s=timeout_s, discard=discard)
        assert isinstance(message, cls)
        return message

    def receive_kind(self, *kinds: str, timeout_s: float, discard: bool = False) -> tuple[str, Message]:
        """:meth:`receive`, but return the kind as well."""
        deadline = time.monotonic() + timeout_s
        while True:
            kind, message, number = self._take(kinds, deadline, timeout_s)
            stray = self._questions.stray(kind, number)
            if kind in kinds and not stray:
                return kind, message
            if discard:
                continue
            if stray and kind in kinds:
                text = f"sent {kind} that answers no question that was asked"
                raise ProtocolError(text, phase="session", role=self._role)
            if kind == "failure":
                raise self._as_error(message)
            raise ProtocolError(
                f"sent {kind} where {' or '.join(kinds)} was expected", phase="session", role=self._role
            )

    def has(self, kind: str) -> bool:
        """Whether a message of *kind* has come that was not taken yet. Does not wait."""
        with self._changed:
            return any(one == kind for one, *_ in self._received)

    def check(self) -> None:
        """Return while the link lives and the other side has reported no Failure. Does not wait.

        :raises MigrateError: the Failure, whatever came before it, or why the link has ended.
        """
        with self._changed:
            if self._failed():
                raise self._take_failure()
            self._raise_end()

    def pending(self) -> str | None:
        """Return the kind of the next message without taking it; None when there is none. Does not wait."""
        with self._changed:
            return self._received[0][0] if self._received else None

    def _take(self, kinds: tuple[str, ...], deadline: float, timeout_s: float) -> tuple[str, Message, int]:
        self._wait(lambda: bool(self._received) or self._end is not None, deadline - time.monotonic())
        with self._changed:
            # What arrived before the end is still worth reading: often it says why.
            if self._received:
                taken = self._received.popleft()
                self._questions.taken(taken[0], taken[2])
                self._changed.notify_all()
                return taken
            self._raise_end()
        raise self._late(f"did not answer within {timeout_s:g} s (waiting for {' or '.join(kinds)})")

    def _failed(self) -> bool:
        return any(kind == "failure" for kind, *_ in self._received)

    def _take_failure(self) -> MigrateError:
        index = next(i for i, (kind, *_) in enumerate(self._received) if kind == "failure")
        message = self._received[index][1]
        del self._received[index]
        return self._as_error(message)

    def _as_error(self, message: Message) -> MigrateError:
        assert isinstance(message, Failure)
        return failure.from_failure(message, self._role)

    def _late(self, text: str) -> TransportError:
        return TransportError(f"the {self._role} {text}", phase="session", role=self._role)

    # --- the end -----------------------------------------------------------------------------------------

    @property
    def error(self) -> MigrateError | None:
        """Why the link has ended, or None while it lives."""
        return self._end

    def on_lost(self, callback: Callable[[MigrateError], None]) -> None:
        """Have *callback* called once, in a thread of the link, when the link is lost; at once if it is."""
        with self._changed:
            if not self.lost.is_set():
                self._callbacks.append(callback)
                return
        assert self._end is not None
        callback(self._end)

    def close(self, *, flush_s: float = 1.0) -> None:
        """Send what is queued, for at most *flush_s*, then close the stream; no thread is left behind.

        Does not raise, may be called twice, is no loss. Messages received before stay readable.
        """
        with self._changed:
            self._closing = True
            self._changed.wait_for(self._flushed, flush_s)
            alive = self._end is None
        if alive:
            self._stream.end(flush_s)
        self._finish(TransportError("the link was closed", phase="session", role=self._role), lost=False)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(limits.LINK_CLOSE_S)

    def _finish(self, error: MigrateError, *, lost: bool) -> None:
        """End the link because of *error*; only the first call counts."""
        with self._changed:
            if self._end is not None:
                return
            self._end = error
            lost = lost and not self._closing
            if lost:
                self.lost.set()
            callbacks = self._callbacks if lost else []
            self._over.set()
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._stream.close()
        for callback in callbacks:
            callback(error)

    # --- the threads -------------------------------------------------------------------------------------

    def _read(self) -> None:
        decoder = frames.Decoder()
        try:
            while data := self._stream.read(_READ_BYTES):
                self._heard_at = time.monotonic()
                arrived_ns = self.clocks.now_ns()
                for frame in decoder.feed(data):
                    self.clocks.take(frame.stamp, arrived_ns)
                    self._accept(frame)
                if decoder.fault is not None:
                    raise decoder.fault
            decoder.finish()
        except ProtocolError as error:
            error.role = self._role
            self._finish(self._explained() or error, lost=True)
        except OSError as error:
            self._finish(self._explained() or self._broken(error), lost=True)
        else:
            self._ended()

    def _accept(self, frame: Frame) -> None:
        kind = frame.WhichOneof("kind")
        assert kind is not None
        if kind == "ping":
            return
        self._goodbye |= kind == "goodbye"
        with self._changed:
            # Frames wait in the stream while nobody takes them here; that is no silence of the other side.
            self._reader_waits = True
            self._changed.wait_for(lambda: len(self._received) < _MAX_RECEIVED or self._end is not None)
            self._reader_waits = False
            self._heard_at = time.monotonic()
            self._received.append((kind, getattr(frame, kind), frame.question))
            self._changed.notify_all()

    def _ended(self) -> None:
        text = "said goodbye" if self._goodbye else "closed the connection"
        plain = TransportError(f"the {self._role} {text}", phase="session", role=self._role)
        self._finish(plain if self._goodbye else self._explained() or plain, lost=not self._goodbye)

    def _explained(self) -> MigrateError | None:
        # Not worth a wait once the link has ended for another reason.
        return self._explain() if self._explain is not None and self._end is None else None

    def _broken(self, error: OSError) -> TransportError:
        text = f"the connection to the {self._role} broke: {error.strerror or error}"
        return TransportError(text, phase="session", role=self._role)

    def _write(self) -> None:
        while (data := self._next_to_write()) is not None:
            try:
                self._stream.write(data)
            except OSError as error:
                # The reader sees the end of the stream too, and may know better why.
                self._threads[0].join(1.0)
                self._finish(self._broken(error), lost=True)
                return

    def _next_to_write(self) -> bytes | None:
        def ready() -> bool:
            return self._end is not None or bool(self._control or self._bulk)

        with self._changed:
            self._writing = False
            self._changed.notify_all()
            self._changed.wait_for(ready, self._ping_s)
            if self._end is not None:
                return None
            self._writing = True
            if self._control:
                return self._control.popleft()
            if self._bulk:
                data = self._bulk.popleft()
                self._changed.notify_all()
                return data
        return frames.encode(Frame(ping=Ping(), stamp=self.clocks.stamp()))

    def _watch(self) -> None:
        left_s = self._silence_s
        while left_s > 0:
            if self._over.wait(left_s):
                return
            now = time.monotonic()
            heard_at = now if self._reader_waits or self._heard_at is None else self._heard_at
            left_s = heard_at + self._silence_s - now
        text = f"the {self._role} has been silent for {self._silence_s:g} s: the link is lost"
        hint = "Look whether the host is up and the network between the two works."
        self._finish(TransportError(text, phase="session", role=self._role, hint=hint), lost=True)
