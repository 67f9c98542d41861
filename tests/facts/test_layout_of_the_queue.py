"""What was not sent before a pass leaves after it as that of any sender: in large pieces, and seldom pushed.

Source: net/ipv4/tcp_output.c tcp_bound_to_half_wnd(), net/ipv4/tcp.c forced_push().
"""

from __future__ import annotations

import contextlib
import socket

import pytest
from harness.pcap import PSH
from netns import Hosts, ip
from passing import assert_no_reset, pass_on
from wire import captured

DATA = bytes(400_000)
SEGMENT_BYTES = 1448


@pytest.mark.parametrize("passed", [True, False], ids=["passed", "not passed"])
def test_it_is_seldom_pushed(hosts: Hosts, passed: bool) -> None:
    """The kernel pushes at least each half of the peer's largest window, a dozen times here.

    And each buffer where it does not know of any window; without offload that is each segment.
    """
    with hosts.here.entered():
        ip("link set here0 gso_max_segs 1")
    sock, peer = hosts.connect()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * len(DATA))
    sock.setblocking(False)
    written = 0
    with contextlib.suppress(BlockingIOError):
        while written < len(DATA):
            written += sock.send(DATA[written:])
    if passed:
        ici, sock = pass_on(hosts, sock)
        assert len(ici.send_queue.unsent) > written // 2
    with captured(hosts.here) as wire:
        read = 0
        peer.settimeout(5)
        while read < written:
            read += len(peer.recv(1 << 20))
        pushed = sum(bool(one.flags & PSH) for one in wire.segments() if one.outgoing)
    assert pushed < written // SEGMENT_BYTES // 4
    assert_no_reset(hosts)
