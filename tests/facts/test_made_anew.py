"""Connections begun anew before a tree is there: as whom, with what, and what an origin may not ask for."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate import limits
from migrate.destination.reconnections import Reconnections
from migrate.errors import MigrateError, ProtocolError
from migrate.pb.session_pb2 import Reconnection

_SO_PASSCRED, _SO_SNDTIMEO = 16, 21


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o777)  # noqa: PTH101
        yield Path(name)


@pytest.fixture
def listening(open_to_all: Path) -> Iterator[socket.socket]:
    """At a path that every user may open."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path := str(open_to_all / "socket"))
        os.chmod(path, 0o777)  # noqa: PTH101
        made.listen()
        yield made


def wanted(listening: socket.socket, **more: object) -> Reconnection:
    return Reconnection(inode=4711, name=listening.getsockname(), socket_type=socket.SOCK_STREAM, **more)


@pytest.mark.parametrize(("uid", "gid"), [(0, 0), (65534, 65533)])
def test_it_is_made_as_the_user_of_the_program(listening: socket.socket, uid: int, gid: int) -> None:
    with Reconnections().made([wanted(listening, uid=uid, gid=gid)]), listening.accept()[0] as there:
        told = there.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    assert struct.unpack("3i", told)[1:] == (uid, gid)


def test_it_is_not_made_where_the_user_may_not_go(listening: socket.socket, open_to_all: Path) -> None:
    """Though root might: in a directory of the user's the path may lead to anybody's."""
    os.chmod(listening.getsockname(), 0o700)  # noqa: PTH101
    (link := open_to_all / "link").symlink_to(listening.getsockname())
    asked = Reconnection(inode=4711, name=str(link), socket_type=socket.SOCK_STREAM, uid=65534, gid=65534)
    with pytest.raises(MigrateError, match="Permission denied"), Reconnections().made([asked]):
        pass


def test_it_has_the_options_of_the_old_one(listening: socket.socket) -> None:
    """CRIU sets none of a socket that it inherits. Sizes of buffers are told twice as large as asked for."""
    limit = struct.pack("2q", 3, 0)
    options = {7: struct.pack("i", 8 << 20), _SO_PASSCRED: struct.pack("i", 1), _SO_SNDTIMEO: limit}
    made = Reconnections()
    with made.made([wanted(listening, options=options, nonblocking=True)]) as descriptors:
        with socket.socket(fileno=os.dup(descriptors[0])) as ours:
            found = {
                one: ours.getsockopt(socket.SOL_SOCKET, one, len(value)) for one, value in options.items()
            }
        assert found == options
        assert not os.get_blocking(descriptors[0])


def test_a_stream_to_the_journal_is_opened_and_receives_no_more(listening: socket.socket) -> None:
    opening = b"name\nown.service\n30\n1\n0\n0\n0\n"
    with Reconnections().made([wanted(listening, opening=opening)]), listening.accept()[0] as there:
        assert there.recv(100) == opening
        with pytest.raises(BrokenPipeError):
            there.send(b"x")


@pytest.mark.parametrize(
    "wrong",
    [
        {"opening": b"name\nown.service\n30\n1\n0\n0\n"},
        {"opening": b"name\nown.service\n30\n1\n0\n0\n0\nline\n"},
        {"options": {_SO_SNDTIMEO: bytes(17)}},
    ],
    ids=str,
)
def test_what_no_origin_asks_for_is_refused(listening: socket.socket, wrong: dict[str, object]) -> None:
    with pytest.raises(ProtocolError), Reconnections().made([wanted(listening, **wrong)]):
        pass


@pytest.mark.parametrize("uid", [0, 65534])
def test_where_nobody_listens_that_is_said(listening: socket.socket, uid: int) -> None:
    asked = wanted(listening, uid=uid)
    listening.close()
    with pytest.raises(MigrateError, match="cannot connect to .*: Connection refused"):  # noqa: SIM117
        with Reconnections().made([asked]):
            pass


@pytest.mark.parametrize("uid", [0, 65534])
def test_one_that_takes_none_is_not_waited_for_without_end(
    listening: socket.socket, uid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RECONNECT_S", 0.5)
    listening.listen(0)
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(listening.getsockname())
        with (
            pytest.raises(MigrateError, match="timed out"),
            Reconnections().made([wanted(listening, uid=uid)]),
        ):
            pass
