"""The session between origin and destination over one byte stream: messages, liveness, order of sending.

Both sides use the same class. Three threads serve it:

- the *reader* decodes frames into a queue;
- the *writer* alone writes, so that an exception raised in a caller (Ctrl-C) never cuts a frame in two;
  control messages overtake bulk ones, and a Ping goes out when nothing else did for a while;
- the *watch* notices that the other side has been silent for too long and closes the stream, which also frees
  a reader or writer that hangs in it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from migrate import limits, threads
from migrate.errors import MigrateError, ProtocolError
from migrate.link import frames, heartbeat, speech
from migrate.link.clock import Clocks
from migrate.link.end import End
from migrate.link.heartbeat import Heartbeat, Limits
from migrate.link.payloads import CHUNK_BYTES, KIND_OF_VALUE, Piece, Said
from migrate.link.queues import CONTROL, LANES, Parts, Received, ReceiveQueue, SendQueue
from migrate.link.speech import Speech
from migrate.link.stream import Stream
from migrate.pb.session_pb2 import Frame, Ping

_READ_BYTES = 256 << 10

# What is said, by its field in Frame; a Piece has two, so its sender says which.
_KIND_OF = {
    field.message_type.full_name: field.name
    for field in Frame.DESCRIPTOR.fields
    if field.message_type is not None and field.name not in ("image", "copy")
}

M = TypeVar("M", bound=Message)


class Rules(Protocol):
    """Who knows what is said when; neither keeps it from being done."""

    def saying(self, kind: str) -> None:
        """A message of *kind* is about to be sent."""

    def awaiting(self, kind: str) -> None:
        """One of *kind* is waited for."""


class Link:
    """Messages both ways over *stream*, until one side closes it or falls silent.

    One condition guards both queues and the end: who sends a bulk message waits for room, for a Failure that came,
    and for the end, whichever is first.

    :param role: the other side, named in errors: ``"origin"`` or ``"destination"``.
    :param quiet: how quiet it may be.
    :param explain: called when the stream has ended: a better error than "the stream ended", e.g. with the
        exit status of the agent; or None.
    :param rules: who knows what may be said when.
    :param now_ns: our clock, for the stamps of frames.
    :ivar checkpoint: called now and then by send, flush and receive while they wait, without any lock held;
        may raise to end the wait (see :mod:`migrate.interrupt`).
    :ivar clocks: how far the other side's clock is ahead of ours.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        role: str = "destination",
        quiet: Limits = heartbeat.USUAL,
        explain: Callable[[], MigrateError | None] | None = None,
        checkpoint: Callable[[], None] | None = None,
        rules: Rules | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.clocks = Clocks(now_ns)
        self.checkpoint = checkpoint
        self._stream, self._quiet, self._rules = stream, quiet, rules
        self._changed = threading.Condition()
        self._sending, self._received = SendQueue(), ReceiveQueue(role)
        self._heart = Heartbeat(quiet.silence_s)
        self._end = End(role, explain)
        self._speech: Speech = speech.Newest()
        self._threads = [
            threading.Thread(target=run, name=f"link-{run.__name__.strip('_')}", daemon=True)
            for run in (self._read, self._write, self._watch)
        ]
        for thread in self._threads:
            threads.start(thread)

    def speak(self, protocol: int, version: str) -> None:
        """From now on both sides speak *protocol*, which they have agreed on in their hellos.

        :param version: the other side's.
        """
        self._speech = speech.of(protocol, version)

    # --- sending -----------------------------------------------------------------------------------------

    def send(self, message: Said, *, kind: str = "", timeout_s: float | None = None) -> None:
        """Queue *message*; it is sent in the background.

        A control message returns at once and overtakes bulk ones, connections and pieces of files, which
        wait while a few are queued. :meth:`flush` waits until all has been handed to the stream.

        :param kind: needed for a Piece only: ``"image"`` or ``"copy"``; its data, as the records of Connections,
            are at most ``payloads.CHUNK_BYTES``.
        :param timeout_s: how long a bulk message may wait; None: until the link is lost.
        :raises TransportError: the link is lost or closed, or the time is over; the message was not sent.
        :raises MigrateError: (bulk only) the Failure that the other side has reported meanwhile.
        """
        kind = kind or _kind_of(message)
        if self._rules is not None:
            self._rules.saying(kind)
        for name, part, payload in self._speech.frames(message, kind):
            lane = LANES.get(name, CONTROL)
            parts = self._encoded(name, part, payload)
            if lane == CONTROL:
                self._send_control(parts)
            else:
                self._send_bulk(parts, lane, timeout_s)

    def unheard(self, message: Said) -> list[str]:
        """What of *message* the other side is too old for: sentences for the user. It is sent all the same."""
        return self._speech.unheard(message)

    def _encoded(self, kind: str, message: Message, payload: bytes) -> Parts:
        if kind in LANES and len(payload) > CHUNK_BYTES:
            raise ValueError(f"a chunk of {len(payload)} bytes; split it to {CHUNK_BYTES}")
        frame = Frame(stamp=self.clocks.stamp(), payload_bytes=len(payload))
        if number := self._received.questions.number(kind):
            frame.question = number
        getattr(frame, kind).CopyFrom(message)
        return frames.encode(frame), payload

    def flush(self, *, timeout_s: float) -> None:
        """Wait until everything queued has been handed to the stream.

        :raises TransportError: the link is lost, or *timeout_s* is over; some was not sent.
        """
        if not self._wait(self._flushed, timeout_s):
            raise self._end.late(f"could not be sent everything within {timeout_s:g} s")
        self._end.require_none()

    def _flushed(self) -> bool:
        return self._end.error is not None or self._sending.flushed

    def _send_control(self, parts: Parts) -> None:
        with self._changed:
            self._end.require_none()
            self._sending.put(parts)
            self._changed.notify_all()

    def _send_bulk(self, parts: Parts, lane: int, timeout_s: float | None) -> None:
        def ready() -> bool:
            ended = self._end.error is not None or self._received.has("failure")
            return ended or self._sending.room(lane)

        if not self._wait(ready, timeout_s):
            raise self._end.late(f"took no image data for {timeout_s:g} s")
        with self._changed:
            self._received.raise_failure()
            self._end.require_none()
            self._sending.put(parts, lane)
            self._changed.notify_all()

    def _wait(self, ready: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait for *ready*, with the checkpoint called between slices of the time; False if it is over."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            slice_s = left_s
            if self.checkpoint is not None:
                self.checkpoint()
                slice_s = limits.HEED_S if left_s is None else min(left_s, limits.HEED_S)
            with self._changed:
                if self._changed.wait_for(ready, slice_s):
                    return True
            if deadline is not None and time.monotonic() >= deadline:
                return False

    # --- receiving ---------------------------------------------------------------------------------------

    def receive(self, *kinds: str, timeout_s: float, discard: bool = False) -> Said:
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
        """:meth:`receive` for a single kind, given by the class of its message."""
        kind = _KIND_OF[cls.DESCRIPTOR.full_name]
        message = self.receive(kind, timeout_s=timeout_s, discard=discard)
        assert isinstance(message, cls)
        return message

    def receive_kind(self, *kinds: str, timeout_s: float, discard: bool = False) -> tuple[str, Said]:
        """:meth:`receive`, but return the kind as well."""
        deadline = time.monotonic() + timeout_s
        if self._rules is not None:
            for kind in kinds:
                self._rules.awaiting(kind)
        while True:
            taken = self._take(kinds, deadline, timeout_s)
            if self._received.accepts(taken, kinds, discard=discard):
                return taken.kind, taken.message

    def has(self, kind: str) -> bool:
        """Whether a message of *kind* has come that was not taken yet. Does not wait."""
        with self._changed:
            return self._received.has(kind)

    def check(self) -> None:
        """Return while the link lives and the other side has reported no Failure. Does not wait.

        :raises MigrateError: the Failure, whatever came before it, or why the link has ended.
        """
        with self._changed:
            self._received.raise_failure()
            self._end.require_none()

    def pending(self) -> str | None:
        """Return the kind of the next message without taking it; None when there is none. Does not wait."""
        with self._changed:
            return self._received.first

    def _take(self, kinds: tuple[str, ...], deadline: float, timeout_s: float) -> Received:
        def ready() -> bool:
            return len(self._received) > 0 or self._end.error is not None

        self._wait(ready, deadline - time.monotonic())
        with self._changed:
            # What arrived before the end is still worth reading: often it says why.
            if self._received:
                taken = self._received.take()
                self._changed.notify_all()
                return taken
            self._end.require_none()
        raise self._end.late(f"did not answer within {timeout_s:g} s (waiting for {' or '.join(kinds)})")

    # --- the end -----------------------------------------------------------------------------------------

    @property
    def error(self) -> MigrateError | None:
        """Why the link has ended, or None while it lives."""
        return self._end.error

    @property
    def lost(self) -> threading.Event:
        """Set when the link is lost: ended without our close() and without a Goodbye from there."""
        return self._end.lost

    def close(self, *, flush_s: float = 1.0) -> None:
        """Send what is queued, for at most *flush_s*, then close the stream; no thread is left behind.

        Does not raise, may be called twice, is no loss. Messages received before stay readable.
        """
        with self._changed:
            self._end.closing = True
            self._changed.wait_for(self._flushed, flush_s)
            alive = self._end.error is None
        if alive:
            self._stream.end(flush_s)
        self._finish(self._end.closed(), lost=False)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(limits.LINK_CLOSE_S)

    def _finish(self, error: MigrateError, *, lost: bool) -> None:
        """End the link because of *error*; only the first call counts."""
        with self._changed:
            if self._end.error is not None:
                return
            self._end.come(error, lost=lost)
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._stream.close()

    # --- the threads -------------------------------------------------------------------------------------

    def _read(self) -> None:
        decoder = frames.Decoder()
        try:
            while data := self._stream.read(_READ_BYTES):
                self._heart.heard(time.monotonic())
                arrived_ns = self.clocks.now_ns()
                for frame, payload in decoder.feed(data):
                    self.clocks.take(frame.stamp, arrived_ns)
                    self._accept(frame, payload)
                if decoder.fault is not None:
                    raise decoder.fault
            decoder.finish()
        except ProtocolError as error:
            self._finish(self._end.of_nonsense(error), lost=True)
        except OSError as error:
            self._finish(self._end.explained() or self._end.broken(error), lost=True)
        else:
            self._finish(self._end.of_stream(), lost=not self._end.goodbye)

    def _accept(self, frame: Frame, payload: bytes) -> None:
        kind = frame.WhichOneof("kind")
        assert kind is not None
        if kind == "ping":
            return
        self._end.goodbye |= kind == "goodbye"
        kind, said = self._speech.heard(kind, getattr(frame, kind), payload)
        with self._changed:
            # Frames wait in the stream while nobody takes them here; that is no silence of the other side.
            self._heart.hold()
            self._changed.wait_for(lambda: self._received.room or self._end.error is not None)
            self._heart.heard(time.monotonic())
            self._received.put(kind, said, frame.question)
            self._changed.notify_all()

    def _write(self) -> None:
        while (pieces := self._next_to_write()) is not None:
            try:
                for data in pieces:
                    self._stream.write(data)
            except OSError as error:
                # The reader sees the end of the stream too, and may know better why.
                self._threads[0].join(1.0)
                self._finish(self._end.broken(error), lost=True)
                return

    def _next_to_write(self) -> list[bytes] | None:
        with self._changed:
            self._sending.written()
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._end.error is not None or self._sending.waits, self._quiet.ping_s
            )
            if self._end.error is not None:
                return None
            if pieces := self._sending.take_some():
                self._changed.notify_all()  # there may be room now
                return pieces
        return [frames.encode(Frame(ping=Ping(), stamp=self.clocks.stamp()))]

    def _watch(self) -> None:
        left_s = self._quiet.silence_s
        while left_s > 0:
            if self._end.over.wait(left_s):
                return
            left_s = self._heart.left_s(time.monotonic())
        self._finish(self._end.silent(self._quiet.silence_s), lost=True)


def _kind_of(said: Said) -> str:
    if isinstance(said, Message):
        return _KIND_OF[said.DESCRIPTOR.full_name]
    if isinstance(said, Piece):
        raise ValueError("a Piece needs a kind")
    return KIND_OF_VALUE[type(said)]
