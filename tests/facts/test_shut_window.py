"""The first segment from the peer that shuts its window is believed, whatever the kernel predicted of it."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from netns import Hosts

import tcpcp

pytestmark = pytest.mark.alone

DATA = Random(1).randbytes(400_000)
#: The peer's kernel counts what comes behind its window.
BEYOND = "TcpExtBeyondWindow"
TRIES = 20


@contextlib.contextmanager
def unacknowledged(hosts: Hosts) -> Iterator[None]:
    """That the peer's window is shut does not arrive here: all of it is in flight."""
    with hosts.there.entered():
        rules = "table inet shut { chain o { type filter hook output priority 0; tcp window 0 drop; }; }"
        subprocess.run(["nft", "-f", "-"], input=rules.replace("; ", ";\n"), text=True, check=True)
    yield
    with hosts.there.entered():
        subprocess.run(["nft", "delete table inet shut"], check=True)


def is_full(ici: tcpcp.Ici, peer: socket.socket, written: int) -> bool:
    """All that the peer's window had room for was sent, and has arrived.

    Else the peer, short of memory, has shut its window over what is under way to it, and any sender, moved or
    not, repeats that (net/ipv4/tcp_timer.c tcp_retransmit_timer(), "Receiver dastardly shrinks window").
    """
    queue = ici.send_queue
    arrived = struct.unpack("i", fcntl.ioctl(peer, termios.FIONREAD, bytes(4)))[0]
    room = ici.window.snd_wnd - len(queue.sent)
    return arrived == written - len(queue.unsent) and room < ici.negotiated.mss_clamp


def passed_when_full(hosts: Hosts, kind: str, same_path: bool) -> tuple[socket.socket, socket.socket, int]:
    """A passed endpoint that does not know that its peer's window is shut, the peer, and what was written."""
    for _ in range(TRIES):
        sock, peer = hosts.connect(kind)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 30_000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * len(DATA))
        with unacknowledged(hosts):
            sock.setblocking(False)
            written = 0
            with contextlib.suppress(BlockingIOError):
                while written < len(DATA):
                    written += sock.send(DATA[written:])
            threading.Event().wait(0.2)  # and what it has room for has arrived
            with hosts.here.entered():
                ici = tcpcp.get(sock)
                full = is_full(ici, peer, written)
                tcpcp.release(sock)
                made = tcpcp.create(ici, same_path=same_path)
        if full:
            assert ici.send_queue.sent and ici.send_queue.unsent
            return made, peer, written
        made.close()
        peer.close()
    raise AssertionError(f"in {TRIES} tries no window was full")


@pytest.mark.parametrize("stamps", (1, 0), ids=("timestamps", "no timestamps"))
@pytest.mark.parametrize("same_path", (False, True))
@pytest.mark.parametrize("kind", ("v4", "v6"))
def test_a_slow_reader(hosts: Hosts, kind: str, same_path: bool, stamps: int) -> None:
    for host in (hosts.here, hosts.there):
        with host.entered():
            Path("/proc/sys/net/ipv4/tcp_timestamps").write_text(str(stamps))
    made, peer, written = passed_when_full(hosts, kind, same_path)
    before = hosts.counters(hosts.there)[BEYOND]
    with hosts.here.entered():
        tcpcp.activate(made)
    threading.Event().wait(1)  # the peer does not read
    assert hosts.counters(hosts.there)[BEYOND] == before
    got = bytearray()
    peer.settimeout(5)
    while len(got) < written:
        got += peer.recv(1 << 16)
    assert got == DATA[:written]
