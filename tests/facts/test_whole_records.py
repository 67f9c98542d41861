"""A thread waits for a record of which a part has come: that is in its buffer, and to the kernel it is read.

Source: net/ipv4/tcp.c tcp_recvmsg_locked(): "target", and copied_seq, which moves before it waits.
"""

from __future__ import annotations

import socket
import threading

import pytest
from netns import Hosts, eventually

import tcpcp
from tcpcp.kernel import tcp_repair

RECORD_BYTES, PART_BYTES = 1000, 300
_SO_RCVLOWAT = 18


@pytest.mark.parametrize("how", ["MSG_WAITALL", "SO_RCVLOWAT"])
def test_the_part_that_has_come_stays_with_the_thread(hosts: Hosts, how: str) -> None:
    """As the documents say: it is not in the ICI, and the thread has it when its call ends."""
    sock, peer = hosts.connect()
    flags = socket.MSG_WAITALL if how == "MSG_WAITALL" else 0
    if not flags:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVLOWAT, RECORD_BYTES)
    came: list[bytes] = []
    peer.sendall(b"a" * PART_BYTES)
    eventually(lambda: tcp_repair.get_inq(sock) == PART_BYTES, "it has come")
    waiting = threading.Thread(target=lambda: came.append(sock.recv(RECORD_BYTES, flags)))
    waiting.start()
    eventually(lambda: tcp_repair.get_inq(sock) == 0, "it is in the thread's buffer")
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        assert (ici.receive_queue.data, came) == (b"", [])
        tcpcp.release(sock)
        waiting.join(5)
        assert came == [b"a" * PART_BYTES]
        with tcpcp.create(ici) as made:
            tcpcp.activate(made)
            peer.sendall(b"b" * (RECORD_BYTES - PART_BYTES))
            eventually(lambda: tcp_repair.get_inq(made) == RECORD_BYTES - PART_BYTES, "the rest, and no more")
