"""A program uses its socket while it is got, resumed, released: nothing is lost, doubled or taken for the peer's.

Each thing that another thread may do is done once after each call that the library makes.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Callable

import pytest
from meddling import after_call, taken, written
from netns import Hosts, eventually
from passing import assert_no_reset

import tcpcp
from tcpcp.endpoint import preparation, reader
from tcpcp.kernel import fields, tcp_repair

_libc = ctypes.CDLL(None)
_SO_ATTACH_FILTER, _SO_DETACH_FILTER, _BPF_RETURN = 26, 27, 6
#: More calls than the library makes for one connection.
_MOST = 400
_OURS, _THEIRS, _ADDED = b"ours, under way", b"theirs, unread", b"by another thread"


@pytest.fixture(params=(True, False), ids=("BPF", "no BPF"))
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to know where the queues are."""
    if not request.param:
        monkeypatch.setattr(fields, "look", lambda socks: [None] * len(socks))
        monkeypatch.setattr(fields, "numbers", lambda socks: [None] * len(socks))


class _Filter(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    @classmethod
    def nothing(cls) -> _Filter:
        """Lets no segment through."""
        return cls(1, struct.pack("=HBBI", _BPF_RETURN, 0, 0, 0))


class Connection:
    """With what was written and read by whom.

    :ivar wrote: what the program's threads were told is written. :ivar read: what they have read.
    :ivar is_shut: one has ended what is written.
    """

    def __init__(self, hosts: Hosts, ours: bytes, theirs: bytes) -> None:
        self.hosts, self.ours, self.theirs = hosts, ours, theirs
        self.sock, self.peer = hosts.connect()
        self.wrote, self.read, self.is_shut = ours, b"", False
        self.peer.sendall(theirs)
        eventually(lambda: tcp_repair.get_inq(self.sock) == len(theirs), "arrived")
        if ours:
            self.peer.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(_Filter.nothing()))
            self.sock.sendall(ours)
            self.peer.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)

    def write(self) -> None:
        self.wrote += _ADDED[: written(self.sock, _ADDED)]

    def take(self) -> None:
        self.read += taken(self.sock, 3)

    def peek(self) -> None:
        assert self.theirs.startswith(taken(self.sock, 3, socket.MSG_PEEK))

    def shut(self) -> None:
        self.is_shut = not _libc.shutdown(self.sock.fileno(), socket.SHUT_WR)

    def check(self) -> None:
        """All is there once, and it works in both directions, but where it was shut; where it lives."""
        if self.sock is self.peer:
            return
        with self.sock, self.peer:
            self.peer.sendall(b"!")
            self.sock.settimeout(5)
            while not self.read.endswith(b"!"):
                self.read += self.sock.recv(100)
            assert self.read == self.theirs + b"!"
            if not self.is_shut:
                self.sock.sendall(b"!")
                self.wrote += b"!"
                self.sock.shutdown(socket.SHUT_WR)
            self.peer.settimeout(5)
            got = b""
            while part := self.peer.recv(100):
                got += part
            assert got == self.wrote


def get_and_resume(one: Connection) -> None:
    ici = tcpcp.get(one.sock)
    assert one.theirs.endswith(ici.receive_queue.data)
    tcpcp.resume(one.sock)


def get_and_pass(one: Connection) -> None:
    ici = tcpcp.get(one.sock)
    try:
        tcpcp.release(one.sock)
    except tcpcp.Moved as exc:
        if exc.lost_bytes:  # the end of the stream, in the very moment: it is told, and that is all
            one.sock = one.peer
            assert one.is_shut and exc.lost_bytes == 1
        else:
            tcpcp.resume(one.sock)
        return
    one.sock = tcpcp.create(ici)
    tcpcp.activate(one.sock)


def each_moment(
    hosts: Hosts,
    ours: bytes,
    theirs: bytes,
    act: Callable[[Connection], None],
    call: Callable[[Connection], None],
) -> list[Connection]:
    """*act* once after each call that *call* makes, each with a connection of its own."""
    made: list[Connection] = []
    with hosts.here.entered():
        tcpcp.prepare()
        for number in range(1, _MOST):
            made.append(one := Connection(hosts, ours, theirs))
            with after_call(number, lambda: act(one)) as meddling:  # noqa: B023  (called in this round)
                call(one)
            if not meddling.done:
                assert number > 10
                return made
    pytest.fail("it does not end")


@pytest.mark.parametrize("act", (Connection.write, Connection.take, Connection.peek, Connection.shut))
@pytest.mark.parametrize(
    "ours, theirs", ((b"", b""), (b"", _THEIRS), (_OURS, _THEIRS)), ids=("empty", "in", "both")
)
def test_while_it_is_got(
    hosts: Hosts, asked: None, act: Callable[[Connection], None], ours: bytes, theirs: bytes
) -> None:
    for one in each_moment(hosts, ours, theirs, act, get_and_resume):
        one.check()
    assert_no_reset(hosts)


@pytest.mark.parametrize("act", (Connection.write, Connection.take))
def test_the_first_of_a_kind(
    hosts: Hosts, asked: None, act: Callable[[Connection], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is asked of that."""

    def as_the_first(one: Connection) -> None:
        preparation._met.clear()
        reader._reading = reader._Reading()
        get_and_resume(one)

    for one in each_moment(hosts, b"", b"", act, as_the_first):
        one.check()


@pytest.mark.parametrize("act", (Connection.write, Connection.take, Connection.shut))
def test_while_it_is_passed(hosts: Hosts, asked: None, act: Callable[[Connection], None]) -> None:
    """Or the passing is refused."""
    for one in each_moment(hosts, _OURS, _THEIRS, act, get_and_pass):
        one.check()
