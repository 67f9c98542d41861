"""The parts of a link without a thread: what is sent in which order, what is taken, silence, the end."""

from __future__ import annotations

import pytest

from migrate.errors import CriuError, ProtocolError, TransportError
from migrate.link.end import End
from migrate.link.heartbeat import Heartbeat
from migrate.link.queues import (
    CONNECTIONS,
    CONTROL,
    FILES,
    MOST_BULK,
    MOST_RECEIVED,
    TOGETHER_BYTES,
    ReceiveQueue,
    SendQueue,
)
from migrate.pb.session_pb2 import Aborted, Commit, Failure, Restored

FAILURE = Failure(kind="CriuError", message="no", phase="restore")

# --- what waits to be sent -------------------------------------------------------------------------------


def put(queue: SendQueue, data: bytes, lane: int = CONTROL) -> None:
    queue.put((data, b""), lane)


def take(queue: SendQueue) -> bytes | None:
    parts = queue.take()
    return parts[0] if parts else None


def test_each_lane_keeps_its_order_and_the_more_urgent_one_goes_first() -> None:
    queue = SendQueue()
    for data in (b"1", b"2"):
        put(queue, b"f" + data, FILES)
        put(queue, b"n" + data, CONNECTIONS)
        put(queue, b"c" + data)
    assert [take(queue) for _ in range(7)] == [b"c1", b"c2", b"n1", b"n2", b"f1", b"f2", None]


def test_small_frames_are_written_together_and_large_ones_as_they_are() -> None:
    queue = SendQueue()
    half = bytes(TOGETHER_BYTES // 2)
    for data in (b"f1", b"f2", half, half, b"f3"):
        queue.put((data[:1], data[1:]), FILES)
    put(queue, b"c")
    assert [queue.take_some(), queue.take_some()] == [[b"cf1f2" + half], [half + b"f3"]]
    assert queue.take_some() == [] and not queue.flushed
    queue.put((b"head", large := bytes(TOGETHER_BYTES)), FILES)
    put(queue, b"f4", FILES)
    assert [queue.take_some(), queue.take_some(), queue.take_some()] == [[b"head", large], [b"f4"], []]


@pytest.mark.parametrize("lane", [CONNECTIONS, FILES])
def test_bulk_has_little_room_and_control_needs_none(lane: int) -> None:
    queue = SendQueue()
    for number in range(MOST_BULK):
        assert queue.room(lane)
        put(queue, bytes([number]), lane)
    assert not queue.room(lane) and queue.room(CONTROL) and queue.room(FILES + CONNECTIONS - lane)
    put(queue, b"control")
    assert take(queue) == b"control" and not queue.room(lane)
    take(queue)
    assert queue.room(lane)


def test_flushed_is_what_was_written_and_not_what_was_taken() -> None:
    queue = SendQueue()
    assert queue.flushed and not queue.waits
    put(queue, b"x")
    assert queue.waits and not queue.flushed
    queue.take()
    assert not queue.waits and not queue.flushed
    queue.written()
    assert queue.flushed


def test_a_ping_is_written_too() -> None:
    queue = SendQueue()
    assert queue.take() is None and not queue.flushed


# --- what has come ---------------------------------------------------------------------------------------


def test_messages_are_taken_in_their_order() -> None:
    queue = ReceiveQueue("destination")
    queue.put("commit", Commit())
    queue.put("aborted", Aborted())
    assert (len(queue), queue.first, queue.has("aborted"), queue.has("failure")) == (2, "commit", True, False)
    assert [queue.take().kind, queue.take().kind] == ["commit", "aborted"]
    assert (len(queue), queue.first, queue.has("aborted")) == (0, None, False)


def test_it_takes_only_so_many() -> None:
    queue = ReceiveQueue("origin")
    for _ in range(MOST_RECEIVED):
        assert queue.room
        queue.put("image", Commit())
    assert not queue.room
    queue.take()
    assert queue.room


def test_a_failure_is_raised_before_its_turn_and_once() -> None:
    queue = ReceiveQueue("destination")
    queue.raise_failure()
    queue.put("commit", Commit())
    queue.put("failure", FAILURE)
    with pytest.raises(CriuError, match="no") as caught:
        queue.raise_failure()
    assert (caught.value.problem.host, caught.value.problem.phase) == ("destination", "restore")
    queue.raise_failure()
    assert (len(queue), queue.first) == (1, "commit")


def test_a_failure_in_its_turn() -> None:
    queue = ReceiveQueue("destination")
    queue.put("failure", FAILURE)
    taken = queue.take()
    assert queue.accepts(taken, ("failure",))
    assert not queue.accepts(taken, ("restored",), discard=True)
    with pytest.raises(CriuError, match="no"):
        queue.accepts(taken, ("restored",))


def test_a_message_of_another_kind() -> None:
    queue = ReceiveQueue("origin")
    queue.put("commit", Commit())
    taken = queue.take()
    assert queue.accepts(taken, ("abort", "commit"))
    assert not queue.accepts(taken, ("abort",), discard=True)
    with pytest.raises(ProtocolError, match="sent commit where abort or gap was expected") as caught:
        queue.accepts(taken, ("abort", "gap"))
    assert caught.value.of_the_other


def test_an_answer_to_another_question() -> None:
    queue = ReceiveQueue("destination")
    number = queue.questions.number("restore")
    queue.put("restored", Restored(), number)
    assert queue.accepts(queue.take(), ("restored",))
    queue.put("restored", Restored(), number - 1)
    taken = queue.take()
    assert not queue.accepts(taken, ("restored",), discard=True)
    with pytest.raises(ProtocolError, match="sent restored that answers no question"):
        queue.accepts(taken, ("restored",))


def test_who_is_asked_answers_what_it_has_taken() -> None:
    """Not what still waits behind it."""
    queue = ReceiveQueue("origin")
    queue.put("restore", Commit(), 7)
    queue.put("abort", Commit(), 8)
    queue.take()
    assert queue.questions.number("restored") == 7
    queue.take()
    assert queue.questions.number("aborted") == 8


# --- silence ---------------------------------------------------------------------------------------------


def test_silence_counts_from_the_first_byte_on() -> None:
    heart = Heartbeat(5.0)
    assert heart.left_s(100.0) == heart.left_s(200.0) == 5.0
    heart.heard(200.0)
    assert (heart.left_s(203.0), heart.left_s(205.0), heart.left_s(207.0)) == (2.0, 0.0, -2.0)
    heart.heard(207.0)
    assert heart.left_s(207.0) == 5.0


def test_what_is_not_read_is_no_silence() -> None:
    heart = Heartbeat(5.0)
    heart.heard(100.0)
    heart.hold()
    assert heart.left_s(1000.0) == 5.0
    heart.heard(1001.0)
    assert heart.left_s(1002.0) == 4.0


# --- the end ---------------------------------------------------------------------------------------------


def test_a_loss_is_told() -> None:
    end = End("destination")
    end.require_none()
    error = end.silent(5.0)
    end.come(error, lost=True)
    assert end.error is error
    assert end.lost.is_set() and end.over.is_set()


def test_an_end_that_was_meant_is_no_loss() -> None:
    for end, lost in ((End("origin"), False), (closing := End("origin"), True)):
        closing.closing = True
        end.come(end.closed(), lost=lost)
        assert end.over.is_set() and not end.lost.is_set()


def test_the_reason_is_raised_anew_each_time() -> None:
    end = End("origin")
    end.come(end.closed(), lost=False)
    raised = []
    for _ in range(2):
        with pytest.raises(TransportError, match="was closed") as caught:
            end.require_none()
        raised.append(caught.value)
    assert raised[0] is not raised[1] and end.error not in raised


def test_reasons() -> None:
    better = TransportError("exit status 1")
    end = End("destination", lambda: better)
    assert end.of_stream() is better
    end.goodbye = True
    assert str(end.of_stream()) == "the destination said goodbye"
    assert str(End("origin").of_stream()) == "the origin closed the connection"
    assert (
        str(end.broken(OSError(32, "Broken pipe"))) == "the connection to the destination broke: Broken pipe"
    )
    assert "silent for 0.2 s" in str(end.silent(0.2)) and end.silent(0.2).problem.hint
    end.come(end.closed(), lost=False)
    assert end.explained() is None  # nobody waits for it any more
