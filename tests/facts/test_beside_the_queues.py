"""What a program would lose because it is not in TCP's queues: refused with a word on what to do, and as before."""

from __future__ import annotations

import io
import socket
import socketserver
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from netns import Hosts, Namespace, eventually

import tcpcp
from tcpcp.endpoint import inspection
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import State

_SO_ZEROCOPY, _MSG_ZEROCOPY, _MSG_ERRQUEUE, _IP_RECVERR = 60, 0x4000000, 0x2000, 11
_TCP_FASTOPEN, _MSG_FASTOPEN = 23, 0x20000000

CALLS = (tcpcp.inspect, tcpcp.get)


def sent_without_a_copy(hosts: Hosts, sock: socket.socket, peer: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, _SO_ZEROCOPY, 1)
    sock.send(b"a" * 1000, _MSG_ZEROCOPY)


def unreachable(hosts: Hosts, sock: socket.socket, peer: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    port = peer.getsockname()[1]
    rules = f"""table inet test {{
        chain in {{
            type filter hook input priority 0;
            tcp dport {port} reject with icmp type host-unreachable
        }}
    }}
    """
    with hosts.there.entered():
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
        sock.send(b"a" * 1000)
        eventually(lambda: inspection.with_error([sock]), "an ICMP error")
        subprocess.run(["nft", "delete table inet test"], check=True)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("make", (sent_without_a_copy, unreachable))
def test_what_the_kernel_has_to_tell(
    hosts: Hosts, make: Callable[[Hosts, socket.socket, socket.socket], None], call: Callable[..., object]
) -> None:
    """Also of a socket whose kind has been met, so that nothing is asked of it."""
    with hosts.here.entered():
        for _ in range(2):
            other, _peer = hosts.connect()
            tcpcp.get(other)
            tcpcp.resume(other)
        sock, peer = hosts.connect()
        make(hosts, sock, peer)
        eventually(lambda: inspection.with_error([sock]), "something to tell")
        with pytest.raises(tcpcp.Unsupported, match="MSG_ERRQUEUE"):
            call(sock)
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if make is sent_without_a_copy:
            sock.recvmsg(1, 200, _MSG_ERRQUEUE)
        tcpcp.get(sock)
        tcpcp.resume(sock)


@pytest.mark.parametrize("mode", ("rb", "w"))
def test_a_file_with_a_buffer(hosts: Hosts, mode: str) -> None:
    """It has read more than it was asked for, and TCP has forgotten that."""
    sock, peer = hosts.connect()
    peer.sendall(b"one\ntwo\n")
    file = sock.makefile(mode)
    if "r" in mode:
        assert file.readline() == b"one\n"
    with hosts.here.entered():
        with pytest.raises(tcpcp.Unsupported, match="pass the socket that it was made of"):
            tcpcp.get(file)
        for call in (tcpcp.get, tcpcp.inspect, lambda one: tcpcp.get_many([(7, one)])):
            with pytest.raises(tcpcp.Unsupported, match="1 open file"):
                call(sock)
        with sock.makefile("rb", buffering=0) as unbuffered:
            assert isinstance(unbuffered, io.RawIOBase)
            tcpcp.get(unbuffered)
            tcpcp.resume(unbuffered)
        if "r" in mode:
            assert file.readline() == b"two\n"
        file.close()
        tcpcp.get(sock)
        tcpcp.resume(sock)


def test_the_file_of_a_handler(hosts: Hosts) -> None:
    """socketserver's: what it has read ahead is taken, and goes beside the ICI."""
    sock, peer = hosts.connect()
    peer.sendall(b"one\ntwo\n")

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            assert self.rfile.readline() == b"one\n"
            with pytest.raises(tcpcp.Unsupported, match="peek"):
                tcpcp.get(self.connection)
            ahead = self.rfile.peek()  # type: ignore[attr-defined]
            self.rfile.close()
            ici = tcpcp.get(self.connection)
            assert ahead + ici.receive_queue.data == b"two\n"
            tcpcp.resume(self.connection)

    with hosts.here.entered():
        Handler(sock, None, None)  # type: ignore[arg-type]


def fast_open(namespace: Namespace) -> None:
    with namespace.entered():
        Path("/proc/sys/net/ipv4/tcp_fastopen").write_text(str(0x607))


def test_accepted_before_the_handshake_is_over(hosts: Hosts) -> None:
    """As TCP Fast Open permits; a moment later it can be passed."""
    for one in (hosts.here, hosts.there):
        fast_open(one)
    with hosts.here.entered():
        listening = socket.create_server(("10.9.0.1", 0))
        listening.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN, 5)
        port = listening.getsockname()[1]
    rule = f"tcp dport {port} tcp flags & (syn | ack) == ack drop"
    with hosts.there.entered():
        rules = f"table inet test {{ chain out {{ type filter hook output priority 0; {rule}; }}; }}"
        subprocess.run(["nft", rules], check=True)
        client = socket.socket()
        client.sendto(b"early", _MSG_FASTOPEN, ("10.9.0.1", port))
    sock, _ = listening.accept()
    with hosts.here.entered():
        with pytest.raises(tcpcp.Unsupported, match="SYN_RECV.*try again"):
            tcpcp.get(sock)
        with hosts.there.entered():
            subprocess.run(["nft", "delete table inet test"], check=True)
        eventually(lambda: tcp_repair.get_state(sock) == State.ESTABLISHED, "over")
        assert tcpcp.get(sock).receive_queue.data == b"early"


def test_a_listener_is_told_what_else_there_is(hosts: Hosts) -> None:
    told = pytest.raises(tcpcp.Unsupported, match=r"LISTEN.*tcpcp\.drain")
    with hosts.here.entered(), socket.create_server(("", 0)) as listening, told:
        tcpcp.get(listening)
