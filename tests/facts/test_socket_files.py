"""Whether a socket file is somebody's: told by the kernel for every network namespace, and nobody is called."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from netns import Namespace

from migrate.criu import unix_paths
from migrate.inventory import names
from migrate.pb.session_pb2 import TakenName
from migrate.processes import unix_diag, unix_file


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("listens", [False, True])
def test_a_socket_of_another_network_namespace(tmp_path: Path, kind: int, listens: bool) -> None:
    path = str(tmp_path / "svc.sock")
    wanted = TakenName(kind=TakenName.PATH, name=path)
    container = Namespace()
    try:
        with container.entered():
            service = socket.socket(socket.AF_UNIX, kind)
        with service:
            service.bind(path)
            if listens and kind != socket.SOCK_DGRAM:
                service.listen()
                service.setblocking(False)
            assert path not in {one.name for one in unix_diag.sockets().values()}
            assert unix_file.is_used_at(path)
            assert [one.name for one in names.taken([wanted])] == [path]
            assert unix_paths.remove([path]) == "0 unix sockets removed"
            if listens and kind != socket.SOCK_DGRAM:
                with pytest.raises(BlockingIOError):
                    service.accept()
        assert not unix_file.is_used_at(path)
        assert names.taken([wanted]) == []
        assert unix_paths.remove([path]) == "1 unix sockets removed"
    finally:
        container.close()


def test_a_socket_that_has_a_peer_and_wants_no_other(tmp_path: Path) -> None:
    path = str(tmp_path / "svc.sock")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
    ):
        one.bind(path)
        other.bind(path + "2")
        one.connect(path + "2")
        assert unix_file.is_used_at(path)
