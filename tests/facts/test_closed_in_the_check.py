"""A connection within the tree that ends while the check looks at it is no connection to a process that stays."""

from __future__ import annotations

import os
import socket
import subprocess
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


def connected() -> tuple[socket.socket, socket.socket, socket.socket]:
    listening = socket.create_server(("127.0.0.1", 0))
    asking = socket.create_connection(listening.getsockname())
    return listening, asking, listening.accept()[0]


def found(missed: socket.socket) -> set[tuple[int, int]]:
    """What a check sees if the process that has *missed* was read before it had it; local and peer ports."""
    inode = os.fstat(missed.fileno()).st_ino
    held = [one for one in tree.sockets_now([os.getpid()]) if one.inode != inode]
    return {(one.local_port, one.peer_port) for one in sockets.collect(held, [os.getpid()]).tcp}


def test_one_that_began_when_its_process_had_been_read(namespace: Namespace) -> None:
    listening, asking, accepted = connected()
    with listening, asking, accepted:
        assert found(asking) == {(listening.getsockname()[1], 0)}


def test_one_that_ended_when_it_had_been_borrowed(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ends, of which one was not seen at all: the second look sees that the other one has gone."""
    listening, asking, accepted = connected()
    second = tree.sockets_now

    def late(pids: Any) -> Any:
        if pids == [os.getpid()] and seen:
            asking.close()
            accepted.close()
        seen.append(1)
        return second(pids)

    seen: list[int] = []
    monkeypatch.setattr(tree, "sockets_now", late)
    with listening:
        port = listening.getsockname()[1]
        assert found(asking) == {(port, 0)} and len(seen) == 2


def test_one_that_somebody_else_has_is_told(namespace: Namespace) -> None:
    listening, asking, accepted = connected()
    with listening, accepted:
        inodes = {os.fstat(one.fileno()).st_ino for one in (listening, accepted)}
        held = [one for one in tree.sockets_now([os.getpid()]) if one.inode in inodes]
        port, client = listening.getsockname()[1], asking.getsockname()[1]
        # Nobody's child, or it would be in the tree; it ends when the connection does.
        subprocess.run(["sh", "-c", "exec 3<&0; cat <&3 3<&- &"], stdin=asking.fileno(), check=True)
        asking.close()
        seen = {(one.local_port, one.peer_port) for one in sockets.collect(held, [os.getpid()]).tcp}
        assert seen == {(port, 0), (port, client)}
        accepted.close()
