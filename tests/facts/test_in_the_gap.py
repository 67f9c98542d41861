"""What goes on while a connection is isolated: clocks, signals, urgent bytes, filters, programs that die."""

from __future__ import annotations

import dataclasses
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Sequence

import pytest
from actor import actor
from alarm import Alarm
from netns import Hosts, eventually, ip
from passing import assert_no_reset, deaf, state_of, wait_state
from traces import NOTHING, rules

import tcpcp
from tcpcp.endpoint import holding, isolation
from tcpcp.endpoint.held import Holding
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import State

pytestmark = pytest.mark.alone


def info(sock: socket.socket) -> bytes:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)


def test_urgent_bytes_on_their_way(hosts: Hosts) -> None:
    """Passed on, they would be ordinary ones in the middle of the stream: refused, until they have arrived."""
    sock, peer = hosts.connect()
    with deaf(hosts.there), hosts.here.entered():
        sock.sendall(b"abc")
        sock.send(b"!", socket.MSG_OOB)
        with pytest.raises(tcpcp.Unsupported, match="urgent"):
            tcpcp.get(sock)
        assert not tcp_repair.get_repair(sock)
    eventually(lambda: not tcp_repair.get_outq(sock), "acknowledged")
    with hosts.here.entered():
        tcpcp.get(sock)
        tcpcp.resume(sock)
    assert peer.recv(10) == b"abc"


@pytest.mark.parametrize("created", (False, True), ids=("got", "created"))
@pytest.mark.parametrize("clock", ("keepalive", "user timeout"))
def test_clocks_stand_still(hosts: Hosts, clock: str, created: bool) -> None:
    """Longer than the connection would have borne unanswered; then it goes on, and its options are as before."""
    sock, peer = hosts.connect()
    if clock == "keepalive":
        for option, value in ((4, 1), (5, 1), (6, 1)):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    else:
        sock.setsockopt(socket.IPPROTO_TCP, 18, 700)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        if created:
            tcpcp.release(sock)
            sock = tcpcp.create(ici)
        time.sleep(3.5)
        (tcpcp.activate if created else tcpcp.resume)(sock)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == (clock == "keepalive")
    assert sock.getsockopt(socket.IPPROTO_TCP, 18) == (0 if clock == "keepalive" else 700)
    sock.sendall(b"1")
    assert peer.recv(1) == b"1"
    peer.sendall(b"2")
    assert sock.recv(1) == b"2"


@pytest.mark.parametrize("microseconds", (False, True), ids=("ms", "us"))
def test_what_is_lost_may_be_sent_again_in_vain(hosts: Hosts, microseconds: bool) -> None:
    """While a connection is isolated, whatever the unit of its timestamps is: the limit of that stands still."""
    sock, peer = hosts.connect()
    with hosts.here.entered():
        with deaf(hosts.there):
            sock.sendall(b"lost")
            ici = tcpcp.get(sock)
        tcpcp.release(sock)
        assert ici.timestamp and ici.send_queue.sent == b"lost"
        value = ici.timestamp.value & ~1 | microseconds
        ici = dataclasses.replace(
            ici, timestamp=dataclasses.replace(ici.timestamp, value=value, microseconds=microseconds)
        )
        sock = tcpcp.create(ici, same_path=True)
        # tcpi_retransmits and tcpi_state of struct tcp_info: by then the kernel has looked at the limit thrice.
        eventually(lambda: info(sock)[2] >= 3 or info(sock)[0] == State.CLOSE, "sent again", 20)
        tcpcp.activate(sock)
    peer.settimeout(10)
    assert peer.recv(10) == b"lost"
    peer.sendall(b"2")
    assert sock.recv(1) == b"2"


@pytest.mark.parametrize("verdict", ("drop", "reject"))
def test_a_filter_on_the_way_out(hosts: Hosts, verdict: str) -> None:
    """That no foreign source address may leave: the connection is built without what would have been fed."""
    sock, peer = hosts.connect()
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        chain = "chain c { type filter hook output priority 0; ip saddr != 10.9.0.1 " + verdict + "; }"
        subprocess.run(["nft", f"table inet f {{ {chain}; }}"], check=True)
        made = tcpcp.create(ici)
        tcpcp.activate(made)
    made.sendall(b"1")
    assert peer.recv(1) == b"1"


@pytest.mark.parametrize("how", ("kill", "exit"))
def test_the_program_that_got_it_is_gone(hosts: Hosts, how: str) -> None:
    """Another one on the same host takes the connection up at once, whatever the first has left."""
    sock, peer = hosts.connect()
    with hosts.here.entered(), actor(hosts.here, sock) as first:
        ici = tcpcp.loads(bytes.fromhex(first.do("get")))
        sock.close()
        if how == "kill":
            first.kill()
        else:
            first.process.communicate(timeout=5)
        made = tcpcp.create(ici)
        tcpcp.activate(made)
    peer.settimeout(3)
    made.sendall(b"1")
    assert peer.recv(1) == b"1"
    peer.sendall(b"2")
    assert made.recv(1) == b"2"


def test_closed_instead_of_released_and_created_again(hosts: Hosts) -> None:
    """In the same process, within the minute."""
    sock, peer = hosts.connect()
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        sock.close()
        tcpcp.create(ici).close()
        made = tcpcp.create(ici)
        tcpcp.activate(made)
    made.sendall(b"1")
    assert peer.recv(1) == b"1"


def test_what_is_corked_goes_at_once(hosts: Hosts) -> None:
    """The kernel's own limit of 200 ms is a timer, and of a connection that is new to it one of seconds."""
    sock, peer = hosts.connect()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    sock.sendall(b"corked")
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        assert ici.send_queue.unsent == b"corked"
        tcpcp.release(sock)
        made = tcpcp.create(ici)
        tcpcp.activate(made)
    peer.settimeout(1)
    assert peer.recv(10) == b"corked"
    assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) == 1


def test_a_handler_raises_at_any_moment(hosts: Hosts, interrupting: Alarm) -> None:
    """Each call is done or not done: what was got can be resumed, and what is resumed works."""
    sock, peer = hosts.connect()
    with hosts.here.entered():
        tcpcp.prepare()
        for number in range(300):
            try:
                interrupting.set(0.00002 * (number % 100 + 1))
                tcpcp.get(sock)
                tcpcp.resume(sock)
                interrupting.over()
            except KeyboardInterrupt:
                pass
            interrupting.over()
            if tcp_repair.get_repair(sock):
                tcpcp.resume(sock)
            assert sock.getsockopt(socket.IPPROTO_TCP, 18) == 0
        assert len(isolation.tables()) == 1
    sock.sendall(b"1")
    assert peer.recv(1) == b"1"


@pytest.mark.parametrize("call", (tcpcp.resume, tcpcp.activate), ids=("resume", "activate"))
@pytest.mark.parametrize("state", (State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT1, State.LAST_ACK))
@pytest.mark.parametrize("kind", ("v4", "v6"))
def test_what_was_lost_before_goes_at_once(
    hosts: Hosts, kind: str, state: State, call: Callable[[socket.socket], None]
) -> None:
    """The timer of the kernel has backed off meanwhile: it would take another 1.6 s."""
    sock, peer = hosts.connect(kind)
    if state in (State.CLOSE_WAIT, State.LAST_ACK):
        peer.shutdown(socket.SHUT_WR)
        wait_state(sock, State.CLOSE_WAIT)
    with hosts.here.entered():
        with deaf(hosts.there):
            sock.sendall(b"lost")
            if state in (State.FIN_WAIT1, State.LAST_ACK):
                sock.shutdown(socket.SHUT_WR)
            assert state_of(sock) is state
            tcpcp.get(sock)
        eventually(lambda: info(sock)[2] >= 3, "sent again in vain", 10)
        call(sock)
    peer.settimeout(0.8)
    assert peer.recv(10) == b"lost"
    if state in (State.FIN_WAIT1, State.LAST_ACK):
        assert peer.recv(1) == b""
    assert_no_reset(hosts)


def test_what_the_peer_ends_between_the_filter_and_a_sockets_turn_is_no_error(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The filter around a whole batch is lifted at once, and the last acknowledgement of a FIN may arrive then."""
    sock, peer = hosts.connect()
    peer.shutdown(socket.SHUT_WR)
    wait_state(sock, State.CLOSE_WAIT)
    lift = holding.let_all_through

    def lift_and_wait(held: Sequence[Holding]) -> list[str]:
        found = lift(held)
        wait_state(sock, State.CLOSE)
        return found

    with hosts.here.entered():
        with deaf(hosts.there):
            sock.shutdown(socket.SHUT_WR)
            tcpcp.get(sock)
        monkeypatch.setattr(holding, "let_all_through", lift_and_wait)
        tcpcp.resume(sock)
    assert (sock.recv(1), peer.recv(1)) == (b"", b"")
    assert_no_reset(hosts)


def test_nothing_is_sent_where_nothing_waits(hosts: Hosts) -> None:
    """However long it was isolated."""
    sock, _ = hosts.connect()
    with hosts.here.entered():
        before = hosts.counters(hosts.here)["TcpOutSegs"]
        tcpcp.get(sock)
        time.sleep(1.2)
        tcpcp.resume(sock)
        assert hosts.counters(hosts.here)["TcpOutSegs"] == before


def test_a_user_timeout_set_meanwhile_stays(hosts: Hosts) -> None:
    sock, _ = hosts.connect()
    sock.setsockopt(socket.IPPROTO_TCP, 18, 700)
    with hosts.here.entered():
        tcpcp.get(sock)
        sock.setsockopt(socket.IPPROTO_TCP, 18, 9000)
        tcpcp.resume(sock)
    assert sock.getsockopt(socket.IPPROTO_TCP, 18) == 9000


def test_a_child_that_got_it_is_killed(hosts: Hosts) -> None:
    """Its parent goes on with the connection in the way that the documentation of get() says."""
    sock, peer = hosts.connect()
    with hosts.here.entered(), actor(hosts.here, sock, timeout_s=1) as child:
        child.do("get")
        child.kill()
        with pytest.raises(tcpcp.AlreadyGot):
            tcpcp.get(sock)
        eventually(lambda: rules(hosts.here).elements == 0, "expired", 3)
        sock.setsockopt(socket.IPPROTO_TCP, tcp_repair.TCP_REPAIR, tcp_repair.OFF_NO_PROBE)
    sock.sendall(b"1")
    assert peer.recv(1) == b"1"
    peer.sendall(b"2")
    assert sock.recv(1) == b"2"


@pytest.mark.parametrize("tag", (-1, 2**64, "a", None))
def test_a_tag_that_is_none(hosts: Hosts, tag: int) -> None:
    """Said before anything is isolated."""
    sock, peer = hosts.connect()
    with hosts.here.entered():
        for call in (lambda: tcpcp.get_many([(tag, sock)]), lambda: tcpcp.passing([(tag, sock)]).__enter__()):
            with pytest.raises(tcpcp.IciError, match="tag"):
                call()
            assert not tcp_repair.get_repair(sock)
            assert rules(hosts.here) == NOTHING
        assert tcpcp.get_many([(2**64 - 1, sock)])[0].tag == 2**64 - 1
        tcpcp.resume(sock)
    peer.sendall(b"1")
    assert sock.recv(1) == b"1"


def test_the_loopback_interface_is_down(hosts: Hosts) -> None:
    """Where what is fed does not arrive for that, the error says so."""
    sock, _ = hosts.connect()
    with hosts.here.entered():
        sock.shutdown(socket.SHUT_WR)
        wait_state(sock, State.FIN_WAIT2)
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        ip("link set lo down")
        with pytest.raises(tcpcp.Unsupported, match="the interface lo is down"):
            tcpcp.create(ici)
        ip("link set lo up")
        tcpcp.activate(tcpcp.create(ici))


@pytest.mark.parametrize("how", (tcpcp.resume, tcpcp.activate))
def test_a_reset_in_the_gap(hosts: Hosts, how: Callable[..., None]) -> None:
    """It is not sent again. Who asks the peer hears of it, who does not hears of it when he sends."""
    sock, peer = hosts.connect()
    sock.settimeout(5)
    with hosts.here.entered():
        tcpcp.get(sock)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        how(sock)
    if how is tcpcp.resume:
        assert not select.select([sock], [], [], 0.3)[0]
        sock.send(b"x")
    with pytest.raises(ConnectionResetError):
        sock.recv(1)
