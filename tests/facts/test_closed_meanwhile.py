"""A connection that is closed while its holder is looked for is nobody's, and does not stand in the way."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection

import pytest

from migrate.inventory import answers, holders
from migrate.pb.session_pb2 import HostInventory


def test_one_that_is_closed_while_its_holder_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other end, of which a process is found, stays."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        closed = socket.create_connection(listening.getsockname())
        accepted = listening.accept()[0]
        looked = holders.of_sockets

        def closing(inodes: Collection[int]) -> dict[int, holders.SocketHolder]:
            closed.close()
            return looked(inodes)

        monkeypatch.setattr(holders, "of_sockets", closing)
        wanted = {os.fstat(one.fileno()).st_ino for one in (closed, accepted)}
        found = HostInventory()
        answers._sockets(found, lambda one: one.inode in wanted)
        with accepted:
            assert [one.inode for one in found.taken_ports] == [os.fstat(accepted.fileno()).st_ino]
            assert found.taken_ports[0].pid == os.getpid()
