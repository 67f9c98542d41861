"""The destination is set up otherwise than the origin, or the path is unusual: the connection goes on as agreed."""

from __future__ import annotations

import dataclasses
import ipaddress
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from netns import Hosts, Namespace, eventually, ip
from passing import assert_no_reset, deaf, state_of, wait_state
from traces import sent_by
from wire import captured

import tcpcp
from tcpcp.errors import IciError
from tcpcp.kernel import fields as kernel_fields
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import Ici, State

_SO_RCVBUFFORCE = 33


def sysctl(namespace: Namespace, name: str, value: int) -> None:
    with namespace.entered():
        Path("/proc/sys/net", name).write_text(str(value))


def passed(hosts: Hosts, sock: socket.socket) -> Ici:
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
    return ici


def rebuilt(hosts: Hosts, ici: Ici) -> socket.socket:
    with hosts.here.entered():
        made = tcpcp.create(ici)
        tcpcp.activate(made)
    return made


def full(hosts: Hosts) -> tuple[socket.socket, socket.socket, int]:
    """A connection whose peer reads nothing: what waits is unsent; how many bytes were written."""
    sock, peer = hosts.connect()
    sock.setblocking(False)
    written = 0
    try:
        while True:
            written += sock.send(b"x" * 100_000)
    except BlockingIOError:
        pass
    eventually(lambda: tcp_repair.get_outq_nsd(sock) == tcp_repair.get_outq(sock) > 0, "window full")
    return sock, peer, written


def reads(peer: socket.socket, count: int, *, end: bool = False) -> None:
    """*peer* gets *count* bytes soon, and then, if so wished, the end."""
    peer.settimeout(5)
    got = 0
    while got < count and (part := peer.recv(1 << 20)):
        got += len(part)
    assert got == count
    assert not end or peer.recv(1) == b""


# --- settings of the destination ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ("option", "sysctl"))
def test_less_may_wait_than_waits(hosts: Hosts, how: str) -> None:
    """TCP_NOTSENT_LOWAT, by the application after it had written, or by the destination (usual for HTTP/2)."""
    sock, peer, written = full(hosts)
    if how == "option":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 16384)
    ici = passed(hosts, sock)
    assert len(ici.send_queue.unsent) > 16384
    if how == "sysctl":
        sysctl(hosts.here, "ipv4/tcp_notsent_lowat", 16384)
    made = rebuilt(hosts, ici)
    wanted = 16384 if how == "option" else 0
    assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == wanted
    reads(peer, written)
    assert_no_reset(hosts)


def test_ipv6_sockets_are_ipv6_only(hosts: Hosts) -> None:
    """net.ipv6.bindv6only of the destination; an IPv4-mapped connection comes."""
    sock, peer = hosts.connect("mapped")
    ici = passed(hosts, sock)
    sysctl(hosts.here, "ipv6/bindv6only", 1)
    made = rebuilt(hosts, ici)
    made.sendall(b"1")
    assert peer.recv(1) == b"1"


@pytest.mark.parametrize("kind", ("v4", "v6", "mapped"))
def test_no_port_of_udp_is_free(hosts: Hosts, kind: str) -> None:
    """Whether the address exists is asked with a socket that needs none."""
    sock, peer = hosts.connect(kind)
    with hosts.here.entered():
        Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("50000 50003")
        taken = [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(4)]
        for one in taken:
            one.bind(("::", 0))
    made = rebuilt(hosts, passed(hosts, sock))
    made.sendall(b"here")
    assert peer.recv(10) == b"here"
    for one in taken:
        one.close()


def test_buffers_above_what_the_destination_tunes_to(hosts: Hosts) -> None:
    """An application's large buffer is kept, with its lock, although tcp_rmem and rmem_max are small there."""
    sock, peer = hosts.connect()
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 3_000_000)
    ici = passed(hosts, sock)
    with hosts.here.entered():
        Path("/proc/sys/net/ipv4/tcp_rmem").write_text("4096 131072 1000000")
    made = rebuilt(hosts, ici)
    peer.sendall(b"1")
    assert made.recv(1) == b"1"


# --- what the handshake agreed on -----------------------------------------------------------------------


def test_without_window_scaling(hosts: Hosts) -> None:
    """An lwIP, say: the window on the wire is what it was, and a megabyte comes promptly."""
    sysctl(hosts.there, "ipv4/tcp_window_scaling", 0)
    sock, peer = hosts.connect()
    port = sock.getsockname()[1]
    with captured(hosts.there) as wire:
        peer.sendall(b"x" * 1000)
        before = {one.window for one in wire.wait_from(port, 2)}
        sock.recv(2000)
        made = rebuilt(hosts, passed(hosts, sock))
        wire.segments()
        peer.sendall(b"x" * 1000)
        after = {one.window for one in wire.wait_from(port, 2)}
    assert min(before) > 60_000
    assert min(after) > 60_000
    threading.Thread(target=peer.sendall, args=(b"w" * 1_000_000,), daemon=True).start()
    reads(made, 1_001_000)
    with hosts.here.entered():
        again = tcpcp.get(made)
        tcpcp.resume(made)
    assert not again.negotiated.window_scaling


@pytest.mark.parametrize("name", ("tcp_sack", "tcp_timestamps", "tcp_window_scaling"))
def test_what_was_not_agreed_on_is_not_used(hosts: Hosts, name: str) -> None:
    """Each of the options off at the peer: off again at the new endpoint, in both directions a megabyte."""
    sysctl(hosts.there, f"ipv4/{name}", 0)
    sock, peer = hosts.connect()
    before = tcp_repair.get_info(sock)
    made = rebuilt(hosts, passed(hosts, sock))
    after = tcp_repair.get_info(made)
    # That a window is not shifted is said by a shift of 0, too.
    visible = tcp_repair.HAS_SACK | tcp_repair.HAS_TIMESTAMPS
    assert after.options & visible == before.options & visible
    assert (after.snd_wscale, after.rcv_wscale) == (before.snd_wscale, before.rcv_wscale)
    for sender, receiver in ((made, peer), (peer, made)):
        threading.Thread(target=sender.sendall, args=(b"w" * 1_000_000,), daemon=True).start()
        reads(receiver, 1_000_000)
    assert_no_reset(hosts)


@pytest.mark.parametrize("address", ("127.0.0.1", "::1"))
def test_segments_over_32767(hosts: Hosts, address: str) -> None:
    """A connection over the loopback interface, or IPoIB; it is one of this host with itself."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with hosts.here.entered():
        listener = socket.create_server((address, 0), family=family)
        peer = socket.create_connection(listener.getsockname()[:2])
        sock, _ = listener.accept()
        before = tcp_repair.get_info(sock)
        ici = tcpcp.get(sock)
        assert ici.negotiated.mss_clamp > 32767
        tcpcp.release(sock)
        made = tcpcp.create(ici)
        tcpcp.activate(made)
    after = tcp_repair.get_info(made)
    assert after.snd_mss >= before.snd_mss
    assert 0 <= after.advmss - before.advmss <= 12  # more than TCP_MAXSEG takes: the route's, without options
    made.sendall(b"y" * 200_000)
    reads(peer, 200_000)


@pytest.mark.parametrize("mss", (40, 88, 536))
def test_small_segments(hosts: Hosts, mss: int) -> None:
    """The peer announced *mss*; ours to it is no larger, and what we announced is what it was."""
    with hosts.here.entered():
        listener = socket.create_server((hosts.here_ip[4], 0))
    with hosts.there.entered():
        peer = socket.socket()
        # A route, for the socket option refuses less than 88.
        command = f"ip route replace 10.9.0.0/24 dev there0 advmss {mss}"
        subprocess.run(command.split(), check=True)
    peer.connect(listener.getsockname())
    sock, _ = listener.accept()
    before = tcp_repair.get_info(sock)
    made = rebuilt(hosts, passed(hosts, sock))
    after = tcp_repair.get_info(made)
    assert (after.snd_mss, after.advmss) == (before.snd_mss, before.advmss)
    made.sendall(b"y" * 5000)
    reads(peer, 5000)
    assert_no_reset(hosts)


def test_dctcp_with_ecn(hosts: Hosts) -> None:
    """dctcp calls itself dctcp-reno on a connection that does not mark yet; nobody has registered that."""
    available = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    if "dctcp" not in available:
        pytest.skip("no dctcp")
    for namespace in (hosts.here, hosts.there):
        sysctl(namespace, "ipv4/tcp_ecn", 1)

    def chosen(listener: socket.socket) -> None:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"dctcp")

    sock, peer = hosts.connect(setup=chosen)
    ici = passed(hosts, sock)
    assert (ici.congestion.algorithm, ici.negotiated.ecn) == ("dctcp", True)
    made = rebuilt(hosts, ici)
    assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"dctcp"
    made.sendall(b"1")
    assert peer.recv(1) == b"1"


def test_a_firewall_drops_what_is_fed(hosts: Hosts) -> None:
    """Of a batch one connection waits for it, not each; then they run without the peer's timestamp."""
    pairs = [hosts.connect() for _ in range(30)]
    for sock, peer in pairs:
        peer.sendall(b"1")
        assert sock.recv(1) == b"1"
    with hosts.here.entered():
        icis = tcpcp.get_many([sock for sock, _ in pairs])
        tcpcp.release_many([sock for sock, _ in pairs])
        chain = 'chain c { type filter hook input priority -400; iifname "lo" meta l4proto tcp drop; }'
        subprocess.run(["nft", f"table inet firewall {{ {chain}; }}"], check=True)
        begin = time.monotonic()
        made = tcpcp.create_many(icis)
        assert time.monotonic() - begin < 1
        tcpcp.activate_many(made)
    for one, (_, peer) in zip(made, pairs, strict=True):
        one.sendall(b"2")
        assert peer.recv(1) == b"2"


# --- half-closed ----------------------------------------------------------------------------------------


def test_closing_with_the_fin_behind_unsent_data(hosts: Hosts) -> None:
    """The window is full, we shut, the peer shuts: our FIN waits behind what waits, theirs has come."""
    sock, peer, written = full(hosts)
    sock.shutdown(socket.SHUT_WR)
    peer.shutdown(socket.SHUT_WR)
    wait_state(sock, State.CLOSING)
    ici = passed(hosts, sock)
    assert (ici.send_queue.fin, ici.send_queue.fin_sent) == (True, False)
    made = rebuilt(hosts, ici)
    assert state_of(made) is State.CLOSING
    assert made.recv(1) == b""
    reads(peer, written, end=True)
    assert_no_reset(hosts)


def test_any_free_port_is_silent(hosts: Hosts) -> None:
    """Half-closed, at another port, which the peer knows nothing of: nothing is sent until activate."""
    pairs = [hosts.connect(kind) for kind in ("v4", "v6", "mapped") for _ in range(10)]
    for sock, peer in pairs:
        peer.shutdown(socket.SHUT_WR)
        wait_state(sock, State.CLOSE_WAIT)
    icis = [passed(hosts, sock) for sock, _ in pairs]
    with captured(hosts.there) as wire, hosts.here.entered():
        made = tcpcp.create_many([ici.at(port=0) for ici in icis])
        time.sleep(0.1)
        ports = {one.getsockname()[1] for one in made}
        assert [one for one in wire.segments() if one.sport in ports] == []
        assert {state_of(one) for one in made} == {State.CLOSE_WAIT}
        tcpcp.release_many(made)
    assert_no_reset(hosts)


def half_closed(hosts: Hosts, state: State, kind: str = "v4") -> tuple[socket.socket, socket.socket]:
    """A connection in *state*; of the last three our FIN has not arrived."""
    sock, peer = hosts.connect(kind)
    if state in (State.CLOSE_WAIT, State.LAST_ACK):
        peer.shutdown(socket.SHUT_WR)
        wait_state(sock, State.CLOSE_WAIT)
    if state is State.FIN_WAIT2:
        sock.shutdown(socket.SHUT_WR)
    elif state is not State.CLOSE_WAIT:
        with deaf(hosts.there):
            sock.shutdown(socket.SHUT_WR)
            if state is State.CLOSING:
                peer.shutdown(socket.SHUT_WR)
            wait_state(sock, state)
    wait_state(sock, state)
    return sock, peer


@pytest.mark.parametrize("how", ("created", "got"))
@pytest.mark.parametrize("state", (State.CLOSE_WAIT, State.FIN_WAIT2), ids=lambda state: state.name)
def test_the_peer_is_woken(hosts: Hosts, state: State, how: str) -> None:
    """What it sent meanwhile it sends again at once, not when its timer, seconds long by then, runs out."""
    sock, _ = half_closed(hosts, state)
    port = sock.getsockname()[1]
    with hosts.here.entered(), captured(hosts.there) as wire:
        ici = tcpcp.get(sock)
        if how == "created":
            tcpcp.release(sock)
            sock = tcpcp.create(ici)
        sent = sent_by(hosts, hosts.there)
        wire.segments()
        tcpcp.activate(sock)
        heard = wire.wait_from(port, 0.5)
    assert heard
    assert all(one.flags & 0x10 and not one.flags & 0x04 for one in heard)
    assert sent
    assert_no_reset(hosts)


#: What each end sets where only a neighbour is to be heard (RFC 5082): the least that is heard; what is sent.
NEIGHBOURS = {
    "v4": ((socket.IPPROTO_IP, 21), (socket.IPPROTO_IP, socket.IP_TTL)),
    "v6": ((socket.IPPROTO_IPV6, 73), (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)),
}


@pytest.mark.parametrize(
    "state",
    (State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT2, State.LAST_ACK, State.CLOSING),
    ids=lambda state: state.name,
)
@pytest.mark.parametrize("kind", NEIGHBOURS)
def test_who_hears_only_its_neighbour_hears_what_is_fed(hosts: Hosts, kind: str, state: State) -> None:
    sock, peer = hosts.connect(kind) if state is State.ESTABLISHED else half_closed(hosts, state, kind)
    least, sent = NEIGHBOURS[kind]
    sock.setsockopt(*least, 255)
    peer.setsockopt(*sent, 255)
    ici = passed(hosts, sock)
    with hosts.here.entered():
        made = tcpcp.create(ici)
        assert state_of(made) == state
        assert kernel_fields.read([made])[0].ts_recent == (ici.timestamp and ici.timestamp.ts_recent)
        tcpcp.activate(made)
    made.close()
    assert_no_reset(hosts)


# --- what an ICI may ask for ----------------------------------------------------------------------------


def test_a_window_of_a_gigabyte_is_refused(hosts: Hosts) -> None:
    """An ICI of a few hundred bytes must not tie up what thousands of connections need."""
    sock, _ = hosts.connect()
    ici = passed(hosts, sock)
    forged = dataclasses.replace(ici, window=dataclasses.replace(ici.window, rcv_wnd=1_000_000_000))
    with hosts.here.entered(), pytest.raises(IciError):
        tcpcp.create(forged)


@pytest.mark.parametrize("name", ("SO_RCVBUF", "SO_SNDBUF"))
def test_a_buffer_of_a_gigabyte_is_refused(hosts: Hosts, name: str) -> None:
    sock, _ = hosts.connect()
    ici = passed(hosts, sock)
    forged = dataclasses.replace(ici, options={**ici.options, name: 1_000_000_000, "SO_BUF_LOCK": 3})
    with hosts.here.entered():
        try:
            made = tcpcp.create(forged)
        except IciError:
            return
        number = socket.SO_RCVBUF if name == "SO_RCVBUF" else socket.SO_SNDBUF
        assert made.getsockopt(socket.SOL_SOCKET, number) <= 64 << 20
        tcpcp.release(made)


def test_its_text_has_no_content(hosts: Hosts) -> None:
    """repr() of an ICI is in every traceback and log; it may be a key of a dictionary, too."""
    sock, peer = hosts.connect()
    peer.sendall(b"password=hunter2;" * 500)
    eventually(lambda: tcp_repair.get_inq(sock) == 8500, "arrived")
    with deaf(hosts.there):
        sock.sendall(b"answer=hunter3;" * 500)
        ici = passed(hosts, sock)
    for text in (repr(ici), str(ici), repr(ici.send_queue), repr(ici.receive_queue)):
        assert "hunter" not in text
        assert len(text) < 3000
    assert {ici: 1}[ici] == 1
    assert hash(ici) == hash(tcpcp.loads(tcpcp.dumps(ici)))


@pytest.mark.parametrize("same_path", (False, True))
@pytest.mark.parametrize("locked", (False, True))
def test_a_route_with_a_congestion_control(hosts: Hosts, locked: bool, same_path: bool) -> None:
    """connect() takes it, whatever was chosen before. One that is locked is what the host's administrator wants."""
    sock, peer = hosts.connect()
    ici = passed(hosts, sock)
    assert ici.congestion.algorithm != "reno"
    lock = ["lock"] if locked else []
    with hosts.here.entered():
        subprocess.run(
            [
                "ip",
                "route",
                "change",
                "10.9.0.0/24",
                "dev",
                "here0",
                "src",
                "10.9.0.1",
                "congctl",
                *lock,
                "reno",
            ],
            check=True,
        )
        made = tcpcp.create(ici, same_path=same_path)
        tcpcp.activate(made)
    assert tcp_repair.get_congestion(made) == ("reno" if locked else ici.congestion.algorithm)
    made.sendall(b"x" * 10_000)
    reads(peer, 10_000)


@pytest.mark.parametrize("half_closed", (False, True))
@pytest.mark.parametrize("kind", ("v4", "v6"))
def test_an_address_that_only_a_route_makes_local(hosts: Hosts, kind: str, half_closed: bool) -> None:
    """A whole prefix is this host's. A listener takes connections there; bind() of IPv6 would not."""
    prefix, address, here = ("10.77.0.0/16", "10.77.1.5", "10.9.0.1")
    if kind == "v6":
        prefix, address, here = ("fd77::/64", "fd77::5", "fd09::1")
    family = socket.AF_INET6 if kind == "v6" else socket.AF_INET
    with hosts.here.entered():
        ip(f"route add local {prefix} dev lo")
        listening = socket.create_server(("", 0), family=family)
    with hosts.there.entered():
        ip(f"route add {prefix} via {here}")
        peer = socket.socket(family)
    peer.connect((address, listening.getsockname()[1]))
    sock, _ = listening.accept()
    if half_closed:
        peer.shutdown(socket.SHUT_WR)
        wait_state(sock, State.CLOSE_WAIT)
    ici = passed(hosts, sock)
    assert str(ici.local.ip) == address
    made = rebuilt(hosts, ici)
    made.sendall(b"x" * 10_000)
    reads(peer, 10_000)
    with hosts.here.entered():
        assert tcpcp.get(made).options == ici.options
    assert_no_reset(hosts)


def test_an_address_that_no_route_makes_local(hosts: Hosts) -> None:
    sock, _peer = hosts.connect("v6")
    ici = passed(hosts, sock)
    other = dataclasses.replace(ici, local=dataclasses.replace(ici.local, ip=ipaddress.ip_address("fd77::5")))
    with hosts.here.entered(), pytest.raises(IciError, match="local address fd77::5 does not exist"):
        tcpcp.create(other)
