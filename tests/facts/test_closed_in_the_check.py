"""A connection within the tree that ends while the check looks at it is no connection to a process that stays."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
from netns import Namespace

from migrate.inventory import sockets
from tcpcp.criu import tree
from tcpcp.kernel.pidfd import Lender

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes network namespaces")


def test_its_other_end_is_left_out_too(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """One end is closed after the kernel's table was read, and before its descriptor was borrowed."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        asking = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        lent, number = Lender.borrow, asking.fileno()

        def late(self: Lender, pid: int, fd: int) -> Any:
            if fd == number:
                asking.close()
            return lent(self, pid, fd)

        monkeypatch.setattr(Lender, "borrow", late)
        with accepted:
            held = list(tree.sockets_now([os.getpid()]))
            ports = {(one.local_port, one.peer_port) for one in sockets.collect(held).tcp}
    assert ports == {(listening_port(ports), 0)}


def listening_port(ports: set[tuple[int, int]]) -> int:
    return next(local for local, peer in ports if not peer)
