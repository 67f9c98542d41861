"""The link over real sockets and threads; silence and loss are provoked, waits have deadlines."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness.wait import eventually

import migrate.origin.run
from migrate.errors import (
    CriuError,
    ImageError,
    KernelError,
    MigrateError,
    Problem,
    ProtocolError,
    Refused,
    Signalled,
    TransportError,
)
from migrate.link import frames
from migrate.link.failure import from_failure, to_failure
from migrate.link.heartbeat import Limits
from migrate.link.link import Link
from migrate.link.payloads import CHUNK_BYTES, Piece
from migrate.link.stream import FdStream
from migrate.pb.session_pb2 import (
    Abort,
    Aborted,
    Commit,
    Failure,
    FileChunk,
    Frame,
    Goodbye,
    Hello,
    Ping,
    Restore,
    Restored,
)

DEADLINE_S = 10.0
CHUNK = Piece(name="pages-1.img", data=b"p" * CHUNK_BYTES)


def stream_of(sock: socket.socket) -> FdStream:
    fd = sock.detach()
    return FdStream(fd, fd)


def link_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("link-")]


@pytest.fixture
def pair() -> Iterator[tuple[Link, Link]]:
    a, b = socket.socketpair()
    origin = Link(stream_of(a), role="destination")
    destination = Link(stream_of(b), role="origin")
    yield origin, destination
    origin.close()
    destination.close()
    assert link_threads() == []


@pytest.fixture
def alone() -> Iterator[Callable[..., tuple[Link, socket.socket]]]:
    """A link and the bare socket of its other side, which says only what the test says."""
    made: list[tuple[Link, socket.socket]] = []

    def make(**options: Any) -> tuple[Link, socket.socket]:
        a, b = socket.socketpair()
        b.settimeout(DEADLINE_S)
        made.append((Link(stream_of(a), **options), b))
        return made[-1]

    yield make
    for link, other in made:
        link.close(flush_s=0)
        other.close()
    assert link_threads() == []


def read_frames(other: socket.socket, until: str) -> list[str]:
    decoder, kinds = frames.Decoder(), []
    while until not in kinds:
        for frame, _ in decoder.feed(other.recv(1 << 16)):
            kinds.append(frame.WhichOneof("kind") or "")
    return kinds


def test_messages_go_both_ways_in_order(pair: tuple[Link, Link]) -> None:
    origin, destination = pair
    origin.send(Hello(version="1"))
    origin.send(CHUNK, kind="image")
    assert destination.expect(Hello, timeout_s=DEADLINE_S).version == "1"
    assert destination.receive_kind("copy", "image", timeout_s=DEADLINE_S) == ("image", CHUNK)
    destination.send(Restored(destination_pid=7))
    restored = origin.receive("restored", timeout_s=DEADLINE_S)
    assert isinstance(restored, Restored)
    assert restored.destination_pid == 7


def test_many_chunks_arrive_whole_from_several_threads(pair: tuple[Link, Link]) -> None:
    origin, destination = pair
    count = 40

    def send(name: str) -> None:
        for i in range(count):
            origin.send(Piece(name=name, offset=i, data=bytes([i]) * 100_000), kind="image")

    senders = [threading.Thread(target=send, args=(name,)) for name in ("a", "b")]
    for sender in senders:
        sender.start()
    seen: dict[str, list[int]] = {"a": [], "b": []}
    for _ in range(2 * count):
        chunk = destination.receive("image", timeout_s=DEADLINE_S)
        assert isinstance(chunk, Piece)
        assert chunk.data == bytes([chunk.offset]) * 100_000
        seen[chunk.name].append(chunk.offset)
    for sender in senders:
        sender.join(DEADLINE_S)
    assert seen == {"a": list(range(count)), "b": list(range(count))}


def test_control_overtakes_queued_chunks(alone: Callable[..., tuple[Link, socket.socket]]) -> None:
    link, other = alone(quiet=Limits(silence_s=60))
    other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    full = threading.Event()

    def fill() -> None:
        try:
            while True:
                link.send(CHUNK, kind="image", timeout_s=0.2)
        except TransportError:
            full.set()

    threading.Thread(target=fill).start()
    assert full.wait(DEADLINE_S)
    link.send(Abort(reason="enough"))  # returns although nothing can be written now
    kinds = read_frames(other, "abort")
    assert kinds.count("image") <= 2  # what the socket took at once, and the chunk in writing


def test_pings_keep_an_idle_link_alive(alone: Callable[..., tuple[Link, socket.socket]]) -> None:
    link, other = alone(quiet=Limits(ping_s=0.05, silence_s=60))
    assert read_frames(other, "ping") == ["ping"]
    a, b = socket.socketpair()
    quick = [Link(stream_of(sock), quiet=Limits(ping_s=0.05, silence_s=0.5)) for sock in (a, b)]
    assert not quick[0].lost.wait(1.2)
    for link in quick:
        link.close()


def test_silence_is_loss(alone: Callable[..., tuple[Link, socket.socket]]) -> None:
    link, other = alone(quiet=Limits(silence_s=0.2))
    other.sendall(frames.encode(Frame(ping=Ping())))
    with pytest.raises(TransportError, match="silent for 0.2 s") as caught:
        link.receive("hello", timeout_s=DEADLINE_S)
    assert caught.value.of_the_other
    assert caught.value.problem.hint
    assert link.lost.is_set()
    link.close()
    assert str(link.error) == str(caught.value)  # closed, and still for the first reason
    with pytest.raises(TransportError, match="silent"):
        link.send(Commit())


def test_a_start_is_no_silence(alone: Callable[..., tuple[Link, socket.socket]]) -> None:
    """Who starts it waits for its first message, as long as a start may take."""
    link, other = alone(quiet=Limits(silence_s=0.2))
    with pytest.raises(TransportError, match="did not answer within 0.6 s"):
        link.receive("hello", timeout_s=0.6)
    assert link.error is None
    other.sendall(frames.encode(Frame(hello=Hello())))
    link.expect(Hello, timeout_s=DEADLINE_S)
    assert link.lost.wait(DEADLINE_S)


def test_silence_frees_a_sender_that_hangs(alone: Callable[..., tuple[Link, socket.socket]]) -> None:
    link, other = alone(quiet=Limits(silence_s=0.5))
    other.sendall(frames.encode(Frame(ping=Ping())))
    began = time.monotonic()
    with pytest.raises(TransportError, match="silent"):
        while True:
            link.send(CHUNK, kind="image")
    assert time.monotonic() - began < DEADLINE_S


def test_unread_frames_are_no_silence(alone: Callable[..., tuple[Link, socket.socket]]) -> None:
    """A side too busy to take its messages must not think that the other one has died."""
    link, other = alone(quiet=Limits(silence_s=0.3))
    sent = 200
    data = (frames.encode(Frame(image=FileChunk(name="a"), payload_bytes=10)) + b"x" * 10) * sent
    other.sendall(data)
    assert not link.lost.wait(1.0)
    for _ in range(sent):
        link.receive("image", timeout_s=DEADLINE_S)


def test_end_without_goodbye_is_loss_and_keeps_what_came(
    alone: Callable[..., tuple[Link, socket.socket]],
) -> None:
    link, other = alone()
    other.sendall(frames.encode(Frame(hello=Hello(version="9"))))
    other.close()
    assert link.lost.wait(DEADLINE_S)
    assert link.expect(Hello, timeout_s=DEADLINE_S).version == "9"
    with pytest.raises(TransportError, match="closed the connection"):
        link.receive("hello", timeout_s=DEADLINE_S)


def test_goodbye_is_no_loss(pair: tuple[Link, Link]) -> None:
    origin, destination = pair
    origin.send(Goodbye())
    origin.close()
    destination.receive("goodbye", timeout_s=DEADLINE_S)
    with pytest.raises(TransportError, match="said goodbye"):
        destination.receive("hello", timeout_s=DEADLINE_S)
    assert not destination.lost.is_set()


def test_close_sends_what_is_queued(pair: tuple[Link, Link]) -> None:
    origin, destination = pair
    for i in range(20):
        origin.send(Hello(protocol=i))
    origin.close()
    assert [destination.expect(Hello, timeout_s=DEADLINE_S).protocol for _ in range(20)] == list(range(20))


def test_explained_end(alone: Callable[..., tuple[Link, socket.socket]]) -> None:
    explanation = TransportError("the agent died with status 1")
    link, other = alone(explain=lambda: explanation)
    other.close()
    with pytest.raises(TransportError, match="status 1"):
        link.receive("hello", timeout_s=DEADLINE_S)


def test_garbage_is_a_protocol_error_of_the_other_side(
    alone: Callable[..., tuple[Link, socket.socket]],
) -> None:
    link, other = alone()
    other.sendall(b"Last login: Tue ...\r\n")
    with pytest.raises(ProtocolError, match="Last login") as caught:
        link.receive("hello", timeout_s=DEADLINE_S)
    assert caught.value.of_the_other
    assert link.lost.is_set()


def test_deadline(alone: Callable[..., tuple[Link, socket.socket]]) -> None:
    link, _ = alone()
    with pytest.raises(TransportError, match="within 0.05 s.*restored"):
        link.receive("restored", "hello", timeout_s=0.05)
    assert not link.lost.is_set()


def test_unexpected_kind(pair: tuple[Link, Link]) -> None:
    origin, destination = pair
    destination.send(Commit())
    destination.send(Hello(version="1"))
    with pytest.raises(ProtocolError, match="sent commit where hello was expected"):
        origin.receive("hello", timeout_s=DEADLINE_S)
    assert origin.expect(Hello, timeout_s=DEADLINE_S).version == "1"


def test_failure_is_raised_as_its_class(pair: tuple[Link, Link]) -> None:
    origin, destination = pair
    destination.send(Failure(phase="restore", kind="CriuError", message="no", hint="look", log_tail=["a"]))
    with pytest.raises(CriuError, match="no") as caught:
        origin.receive("restored", timeout_s=DEADLINE_S)
    error = caught.value
    assert error.problem == Problem("CriuError", "no", "look", ("a",), "restore", "destination")


def test_failure_stops_the_stream_of_chunks(pair: tuple[Link, Link]) -> None:
    origin, destination = pair
    destination.send(Failure(phase="stream", kind="ImageError", message="no space"))
    with pytest.raises(ImageError, match="no space"):
        while True:
            origin.send(CHUNK, kind="image", timeout_s=DEADLINE_S)
    origin.send(Abort(reason="no space"))  # was raised once, and is in nobody's way now
    destination.receive("abort", timeout_s=DEADLINE_S, discard=True)
    destination.send(Aborted())
    origin.receive("aborted", timeout_s=DEADLINE_S)


def test_discard_skips_what_was_under_way(pair: tuple[Link, Link]) -> None:
    origin, destination = pair
    destination.send(Restored(destination_pid=1))
    destination.send(Failure(kind="CriuError", message="x"))
    destination.send(Aborted(undone=["image directory"]))
    assert origin.expect(Aborted, timeout_s=DEADLINE_S, discard=True).undone == ["image directory"]


def test_pending_does_not_take(pair: tuple[Link, Link]) -> None:
    origin, destination = pair
    assert origin.pending() is None
    destination.send(Abort())
    eventually(origin.pending, "it has come")
    assert origin.pending() == "abort"
    origin.receive("abort", timeout_s=DEADLINE_S)


def test_checkpoint_ends_a_wait(alone: Callable[..., tuple[Link, socket.socket]]) -> None:
    calls = iter([None, KeyboardInterrupt()])

    def checkpoint() -> None:
        if (error := next(calls)) is not None:
            raise error

    link, _ = alone(checkpoint=checkpoint)
    with pytest.raises(KeyboardInterrupt):
        link.receive("hello", timeout_s=DEADLINE_S)


def test_chunks_need_a_kind_and_a_size(pair: tuple[Link, Link]) -> None:
    with pytest.raises(ValueError, match="kind"):
        pair[0].send(CHUNK)
    with pytest.raises(ValueError, match="split"):
        pair[0].send(Piece(name="a", data=b"x" * (CHUNK_BYTES + 10_000)), kind="copy")


def test_over_pipes_close_frees_the_reader() -> None:
    (r, other_w), (other_r, w) = os.pipe(), os.pipe()
    link = Link(FdStream(r, w), quiet=Limits(silence_s=60))
    link.send(Ping())
    link.close()
    assert link_threads() == []
    with pytest.raises(TransportError, match="was closed"):
        link.receive("hello", timeout_s=DEADLINE_S)
    os.close(other_r)
    os.close(other_w)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(r)


@pytest.mark.parametrize("error", [CriuError("a", hint="h", details=["d"]), ImageError("b")])
def test_failure_round_trip(error: MigrateError) -> None:
    error.add_note("n")
    error.stamp("build", "destination")
    back = from_failure(to_failure(error), "destination")
    assert type(back) is type(error)
    assert (str(back), back.problem) == (str(error), error.told())


#: What is raised on purpose, by us, the library or the system, in classes of any depth -> how it is caught here.
RAISED = [
    ("OSError", MigrateError), ("FileNotFoundError", MigrateError), ("PermissionError", MigrateError),
    ("BrokenPipeError", MigrateError), ("ConnectionRefusedError", MigrateError), ("IsolationError", KernelError),
    ("Unanswered", KernelError), ("Moved", KernelError), ("CodecError", ImageError), ("Signalled", Signalled),
    ("Damaged", MigrateError), ("LinkInPath", MigrateError), ("Interrupted", MigrateError),
    ("Lost", TransportError),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "caught"), RAISED)
def test_failure_of_any_kind_keeps_its_name_and_needs_none_before_its_text(
    kind: str, caught: type[MigrateError]
) -> None:
    """One that only this host can have, as a stop by its user, is not taken for that."""
    assert migrate.origin.run  # the kinds are those of what is loaded there
    told = Failure(kind=kind, message="/x: No space left on device", hint="h", phase="copy")
    error = from_failure(told)
    assert error.problem == Problem(kind, told.message, "h", (), "copy", "destination")
    assert type(error) is caught


def test_what_is_no_text_is_sent_all_the_same() -> None:
    error = ImageError("cannot read /\udcff", hint="Look at /\udcff.", details=["\udcff"])
    assert to_failure(error).message == "cannot read /\\udcff"


def test_failure_of_a_bug_and_of_a_refusal() -> None:
    bug = from_failure(Failure(kind="KeyError", message="'pid'", phase="restore"))
    assert type(bug) is MigrateError
    assert (str(bug), bug.problem.kind) == ("KeyError: 'pid'", "KeyError")
    refused = from_failure(Failure(kind="Refused", message="m", log_tail=["one", "two"]))
    assert isinstance(refused, Refused)
    assert [reason.text for reason in refused.reasons] == ["one", "two"]


# --- questions and answers ---------------------------------------------------------------------------------


def early(link: Link, other: socket.socket) -> None:
    """The other side has said "restored" before it is asked; then it is."""
    other.sendall(frames.encode(Frame(restored=Restored(destination_pid=7))))
    eventually(link.pending, "it has come", pause_s=0.001)
    link.send(Restore())


def test_an_answer_that_was_there_before_the_question_is_none(
    alone: Callable[..., tuple[Link, socket.socket]],
) -> None:
    link, other = alone(quiet=Limits(silence_s=60))
    early(link, other)
    with pytest.raises(ProtocolError, match="answers no question"):
        link.expect(Restored, timeout_s=DEADLINE_S)


def test_an_undo_passes_over_what_was_not_asked(pair: tuple[Link, Link]) -> None:
    origin, destination = pair
    origin.send(Abort())
    destination.expect(Abort, timeout_s=DEADLINE_S)
    destination.send(Aborted(undone=["the first"]))
    origin.send(Abort())  # the answer to the first one is on its way
    destination.expect(Abort, timeout_s=DEADLINE_S)
    destination.send(Aborted(undone=["the second"]))
    answer = origin.expect(Aborted, timeout_s=DEADLINE_S, discard=True)
    assert answer.undone == ["the second"]


def test_answers_bear_the_number_of_their_question(pair: tuple[Link, Link]) -> None:
    """What the driver sends beside its question takes none."""
    origin, destination = pair
    for _ in range(2):
        origin.send(Restore())
        origin.send(CHUNK, kind="copy")
        destination.expect(Restore, timeout_s=DEADLINE_S)
        destination.receive("copy", timeout_s=DEADLINE_S)
        destination.send(Restored(destination_pid=7))
        assert origin.expect(Restored, timeout_s=DEADLINE_S).destination_pid == 7
