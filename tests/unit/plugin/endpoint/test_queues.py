"""What is asked of a socket that is written to meanwhile belongs to one moment."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tcpcp.endpoint import queues
from tcpcp.errors import Unsupported
from tcpcp.kernel import peeking, tcp_repair


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket() as made:
        yield made


def answers(monkeypatch: pytest.MonkeyPatch, outstanding: list[int], unsent: list[int]) -> None:
    monkeypatch.setattr(tcp_repair, "get_outq", lambda _: outstanding.pop(0))
    monkeypatch.setattr(tcp_repair, "get_outq_nsd", lambda _: unsent.pop(0))


def test_what_is_written_between_two_calls(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """400 bytes were sent, and 100 more are written, unsent, when the first call has answered."""
    answers(monkeypatch, [400, 500, 500, 500], [100, 100])
    assert queues._left_to_send(sock) == (500, 400)


def test_one_that_is_written_to_all_the_time(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, list(range(1, 99)), [0] * 99)
    with pytest.raises(Unsupported, match="is written to all the time"):
        queues._left_to_send(sock)


def test_a_queue_that_grows_between_two_peeks(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says how much there is, whatever the room: it is read until there is room."""
    there = iter((10, 30, 30))
    monkeypatch.setattr(peeking, "_send_queue", lambda _, room: (7, bytes(range(room)), next(there)))
    assert peeking.send_queue(sock, 4) == (7, bytes(range(26, 30)))


def test_what_all_is_read_of_is_no_urgent_data(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread has read everything when it is peeked at."""
    found = iter((queues.Incoming(9, 5), queues.Incoming(9, 0), queues.Incoming(9, 0)))
    monkeypatch.setattr(queues, "_incoming", lambda *_: next(found))
    monkeypatch.setattr(queues, "_peeked", lambda *_: b"")
    rcv_nxt, queue = queues.read_receive_queue(sock, queues.State.ESTABLISHED, _Known())  # type: ignore[arg-type]
    assert (rcv_nxt, queue.data) == (9, b"")


class _Known:
    options: dict[str, int] = {}
    shut = False
