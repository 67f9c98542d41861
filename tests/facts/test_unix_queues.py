"""What waits in a unix socket and would be another thing after the move: seen without being taken or moved."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest

from migrate.inventory import unix_queues
from migrate.inventory.unix_queues import SO_PEEK_OFF
from migrate.processes import unix_diag

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="asks the kernel for all unix sockets")

DGRAM, SEQPACKET, STREAM = socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_STREAM
PACKETS = pytest.mark.parametrize("kind", [DGRAM, SEQPACKET])


def found(sock: socket.socket, *, still: bool) -> str:
    row = unix_diag.sockets()[os.fstat(sock.fileno()).st_ino]
    return unix_queues.lost(sock, row, still=still)[0] if unix_queues.may_lose(row) else ""


def pair(kind: int, *messages: bytes) -> tuple[socket.socket, socket.socket]:
    there, here = socket.socketpair(socket.AF_UNIX, kind)
    for one in messages:
        there.send(one)
    return there, here


def drained(sock: socket.socket) -> list[bytes]:
    sock.setblocking(False)
    read = []
    try:
        while len(read) < 9:
            read.append(sock.recv(9))
    except BlockingIOError:
        pass
    return read


@PACKETS
@pytest.mark.parametrize("messages", [(b"", b"one"), (b"",), (b"one", b"", b"two"), (b"one", b"two", b"")])
def test_an_empty_message(kind: int, messages: tuple[bytes, ...]) -> None:
    """Of a program that runs only the first is looked at; nothing is taken and no peek begins elsewhere."""
    _there, here = pair(kind, *messages)
    assert found(here, still=True) == "unix-empty"
    assert found(here, still=False) == ("unix-empty" if not messages[0] else "")
    assert here.getsockopt(socket.SOL_SOCKET, SO_PEEK_OFF) == -1
    assert drained(here) == list(messages)


@PACKETS
@pytest.mark.parametrize("still", [False, True])
def test_none_is_empty(kind: int, still: bool) -> None:
    there, here = pair(kind, b"one", b"two", b"three")
    assert found(here, still=still) == found(there, still=still) == ""
    assert drained(here) == [b"one", b"two", b"three"]


@pytest.mark.parametrize("ends", [socket.socket.close, lambda one: one.shutdown(socket.SHUT_WR)])
@pytest.mark.parametrize("still", [False, True])
def test_the_end_is_no_message(ends: Callable[[socket.socket], None], still: bool) -> None:
    there, here = pair(SEQPACKET, b"one", b"two")
    ends(there)
    assert found(here, still=still) == ""
    there, here = pair(SEQPACKET)
    ends(there)
    assert found(here, still=still) == ""
    there, here = pair(SEQPACKET, b"", b"two")
    ends(there)
    assert found(here, still=still) == "unix-empty"


def test_a_programs_own_peeks_begin_where_they_did() -> None:
    """Then the first message cannot be looked at while it runs."""
    _there, here = pair(DGRAM, b"", b"one")
    here.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
    assert found(here, still=False) == ""
    assert found(here, still=True) == "unix-empty"
    assert here.getsockopt(socket.SOL_SOCKET, SO_PEEK_OFF) == 0


@pytest.mark.parametrize("named", [False, True])
def test_a_senders_name(named: bool) -> None:
    receiver, sender = (socket.socket(socket.AF_UNIX, DGRAM) for _ in range(2))
    receiver.bind("")
    if named:
        sender.bind("")
    first = socket.socket(socket.AF_UNIX, DGRAM)
    first.sendto(b"hi", receiver.getsockname())
    sender.sendto(b"hi", receiver.getsockname())
    assert found(receiver, still=True) == ("unix-sender" if named else "")
    assert receiver.recvfrom(9)[1] is None
    assert found(receiver, still=False) == ("unix-sender" if named else "")
    assert receiver.recvfrom(9)[1] == (sender.getsockname() if named else None)


@pytest.mark.parametrize("inline", [0, 1])
@pytest.mark.parametrize("still", [False, True])
def test_an_urgent_byte(inline: int, still: bool) -> None:
    there, here = pair(STREAM, b"hello")
    here.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, inline)
    assert found(here, still=still) == ""
    there.send(b"!", socket.MSG_OOB)
    assert found(here, still=still) == "unix-urgent"
    assert here.recv(9) == b"hello"
    assert here.recv(1, 0 if inline else socket.MSG_OOB) == b"!"


@pytest.mark.parametrize("kind", [STREAM, SEQPACKET])
@pytest.mark.parametrize("still", [False, True])
def test_an_error_that_was_not_told(kind: int, still: bool) -> None:
    there, here = pair(kind)
    here.send(b"never read")
    there.close()
    assert found(here, still=still) == "unix-error"
    with pytest.raises(ConnectionResetError):
        here.recv(1)
    assert found(here, still=still) == ""
