"""TCP sockets that have no connection yet: what CRIU does not save of them is read, and set again."""

from __future__ import annotations

import os
import socket

import pytest
from netns import Namespace
from programs import program

from tcpcp.criu import stages

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes network namespaces")

TIMEOUT, ALGORITHM = socket.TCP_USER_TIMEOUT, socket.TCP_CONGESTION
CODE = """
a = socket.socket(); b = socket.socket(10); b.bind(("::1", 0))
for one in (a, b):
    one.setsockopt(6, 18, 9000 + one.fileno()); one.setsockopt(6, 13, b"reno")
ready()
"""


def test_options_of_sockets_without_a_connection(namespace: Namespace) -> None:
    with program(CODE) as pid:
        extract = stages.Extract.collect([pid])
        extract.close()
    found = {one.inode: (one.options, one.congestion) for one in extract.unconnected}
    holders = {one.inode: one.holders[0] for one in extract.held}
    assert len(found) == 2 and not extract.listening
    fresh = {inode: socket.socket(socket.AF_INET6) for inode in found}
    here = {inode: (os.getpid(), sock.fileno()) for inode, sock in fresh.items()}
    stages.finish([], here, found, same_path=True)
    for inode, sock in fresh.items():
        with sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, TIMEOUT) == 9000 + holders[inode][1]
            assert sock.getsockopt(socket.IPPROTO_TCP, ALGORITHM, 16).rstrip(b"\0") == b"reno"
