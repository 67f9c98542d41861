"""Why SYN_SENT is not passed: CRIU's recipe, and what the peer sees of it.

libsoccr sets ``write_seq``, leaves repair mode and calls connect(): the same SYN is sent again, with the same
number. But connect() draws a new offset of the timestamp clock (net/ipv4/tcp_ipv4.c tcp_v4_connect()), no
call sets ``retrans_stamp``, and an answer that echoes the first SYN's timestamp is before it: the kernel
resets (net/ipv4/tcp_input.c tcp_rcv_synsent_state_process(), PAWSACTIVEREJECTED). Nothing is lost by refusing:
no byte has been sent, and the application's connect() has not returned.
"""

from __future__ import annotations

import errno
import socket

import pytest
from netns import Hosts, eventually
from passing import deaf

from tcpcp.endpoint import calls, socket_ends
from tcpcp.endpoint.isolation import Flow, Isolation
from tcpcp.errors import Unsupported
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import State


def connecting(hosts: Hosts) -> tuple[socket.socket, socket.socket, Isolation]:
    """A socket on *here* in SYN_SENT, the listener on *there* whose answer it did not hear, and its isolation."""
    with hosts.there.entered():
        listener = socket.create_server((hosts.there_ip[4], 0))
    with hosts.here.entered():
        sock = socket.socket()
        held = Isolation("syn-sent")
    sock.setblocking(False)
    sock.bind((hosts.here_ip[4], 0))
    with deaf(hosts.here), hosts.here.entered():
        assert sock.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        held.hold([Flow(socket_ends.local_end(sock), socket_ends.local_end(listener))])
    return sock, listener, held


def test_it_is_refused(hosts: Hosts) -> None:
    sock, _, _ = connecting(hosts)
    with hosts.here.entered(), pytest.raises(Unsupported, match="SYN_SENT cannot be passed"):
        calls.get(sock)
    assert not tcp_repair.get_repair(sock)


def test_criu_s_recipe_resets_the_peer(hosts: Hosts) -> None:
    sock, listener, held = connecting(hosts)
    name = sock.getsockname()
    with hosts.here.entered():
        tcp_repair.set_repair(sock, tcp_repair.ON)
        tcp_repair.select_queue(sock, tcp_repair.SEND_QUEUE)
        number = tcp_repair.get_queue_seq(sock)
        sock.close()
        made = socket.socket()
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp_repair.set_repair(made, tcp_repair.ON)
        made.bind(name)
        tcp_repair.select_queue(made, tcp_repair.SEND_QUEUE)
        tcp_repair.set_each(made, [tcp_repair.queue_seq(number - 1)])
        tcp_repair.set_repair(made, tcp_repair.OFF_NO_PROBE)
        assert made.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        assert State(tcp_repair.get_info(made).state) is State.SYN_SENT
        held.release()
    eventually(lambda: hosts.counters(hosts.here)["TcpOutRsts"] > 0, "the answer is reset")
    assert hosts.counters(hosts.here)["TcpExtPAWSActive"] > 0
