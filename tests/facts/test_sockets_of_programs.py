"""The sockets that real programs have: with timeouts, wrapped, shared, waited on, in use while they are got."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from netns import Hosts, eventually
from passing import assert_no_reset, deaf, state_of
from programs import is_in_a_call
from traces import NOTHING, changed, everything, is_held, rules, sent_by

import tcpcp
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import Ici, State

#: include/uapi/linux/in6.h
IPV6_ADDRFORM = 1


class Holder:
    """An object of a program's own that stands for a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def fileno(self) -> int:
        return self._sock.fileno()


# --- told the wrong family -------------------------------------------------------------------------------

MISTOLD = {"v4": socket.AF_INET6, "v6": socket.AF_INET, "mapped": socket.AF_INET}


@pytest.mark.parametrize("kind", MISTOLD)
def test_told_the_wrong_family(hosts: Hosts, kind: str) -> None:
    """Python believes the family given to fromfd(); what is read is the kernel's, of it and of all others alike."""
    (sock, peer), (other, _) = hosts.connect(kind), hosts.connect(kind)
    mistold = socket.fromfd(sock.fileno(), MISTOLD[kind], socket.SOCK_STREAM)
    with hosts.here.entered():
        icis = [tcpcp.get(one) for one in (mistold, other)]
        assert [one.ipv6_socket for one in icis] == [kind != "v4"] * 2
        assert icis[0].options == icis[1].options
        assert {str(one.local.ip) for one in icis} == {hosts.here_ip[6 if kind == "v6" else 4]}
        tcpcp.resume(other)
        tcpcp.release(mistold)
        assert mistold.fileno() == -1
        with tcpcp.create(icis[0]) as made:
            tcpcp.activate(made)
            peer.sendall(b"x")
            assert made.recv(1) == b"x"
    sock.close()
    assert_no_reset(hosts)


def test_of_another_family_since(hosts: Hosts) -> None:
    """IPV6_ADDRFORM makes an IPv4 socket of an IPv6 one with mapped addresses; no object is told."""
    sock, peer = hosts.connect("mapped")
    sock.setsockopt(socket.IPPROTO_IPV6, IPV6_ADDRFORM, socket.AF_INET)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        assert not ici.ipv6_socket
        tcpcp.resume(sock)
    peer.sendall(b"x")
    assert sock.recv(1) == b"x"


def test_listener_told_the_wrong_family(hosts: Hosts) -> None:
    """What it accepts would be told the same."""
    with hosts.here.entered(), socket.create_server((hosts.here_ip[4], 0)) as listener:
        mistold = socket.fromfd(listener.fileno(), socket.AF_INET6, socket.SOCK_STREAM)
        with hosts.there.entered():
            peer = socket.socket()
        peer.connect(listener.getsockname())
        (sock,) = tcpcp.drain(mistold)
        assert sock.family == socket.AF_INET
        mistold.close()


@pytest.mark.parametrize("family", (socket.AF_INET, socket.AF_INET6))
def test_created_with_one_told_the_wrong_family(hosts: Hosts, family: int) -> None:
    sock, _ = hosts.connect()
    with hosts.here.entered(), socket.socket(family) as given:
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        wrong = socket.AF_INET if family == socket.AF_INET6 else socket.AF_INET6
        mistold = socket.fromfd(given.fileno(), wrong, socket.SOCK_STREAM)
        with mistold, pytest.raises(tcpcp.Unsupported, match="family"):
            tcpcp.create(ici, sock=mistold)
        with tcpcp.create(ici) as made:
            tcpcp.activate(made)


# --- with a timeout -------------------------------------------------------------------------------------


def test_with_a_timeout(hosts: Hosts) -> None:
    """settimeout() is the rule in programs with threads. Nothing waits, with either queue empty or not."""
    sock, peer = hosts.connect()
    sock.settimeout(3)
    with deaf(hosts.there), hosts.here.entered():
        sock.sendall(b"x" * 5000)
        before = everything(sock)
        begin = time.monotonic()
        ici = tcpcp.get(sock)
        assert time.monotonic() - begin < 2
        assert ici.send_queue.sent == b"x" * 5000
        tcpcp.resume(sock)
    assert changed(sock, before) == {}
    eventually(lambda: tcp_repair.get_inq(peer) == 5000, "arrived")


def test_created_with_a_default_timeout(hosts: Hosts) -> None:
    """A created socket is blocking, whatever the program's default is."""
    sock, peer = hosts.connect()
    peer.sendall(b"waits")
    eventually(lambda: tcp_repair.get_inq(sock) == 5, "arrived")
    socket.setdefaulttimeout(5.0)
    try:
        with deaf(hosts.there), hosts.here.entered():
            sock.sendall(b"x" * 5000)
            ici = tcpcp.get(sock)
            tcpcp.release(sock)
            made = tcpcp.create(ici)
            assert made.gettimeout() is None
            assert made.getblocking()
            assert os.get_blocking(made.fileno())
            tcpcp.activate(made)
    finally:
        socket.setdefaulttimeout(None)
    assert made.recv(10) == b"waits"


# --- what stands for a socket ---------------------------------------------------------------------------


def test_of_asyncio(hosts: Hosts) -> None:
    """TransportSocket has fileno() and cannot be referred to weakly."""
    sock, peer = hosts.connect()
    sock.setblocking(False)

    async def main() -> Ici:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
        wrapped = transport.get_extra_info("socket")
        with hosts.here.entered():
            ici = tcpcp.get(wrapped)
            assert is_held(peer)
            tcpcp.resume(wrapped)
            assert not tcp_repair.get_repair(sock)
            transport.pause_reading()
            ici = tcpcp.get(wrapped)
            tcpcp.release(wrapped)
            transport.abort()
        return ici

    ici = asyncio.run(main())
    with hosts.here.entered():
        made = tcpcp.create(ici)
        tcpcp.activate(made)
    made.sendall(b"1")
    assert peer.recv(1) == b"1"
    assert_no_reset(hosts)


@pytest.mark.parametrize("end", ("resume", "activate", "release"))
def test_anything_with_fileno(hosts: Hosts, end: str) -> None:
    """One object gets, another of the same descriptor ends it."""
    sock, peer = hosts.connect()
    with hosts.here.entered():
        ici = tcpcp.get(Holder(sock))
        tcpcp.renew(Holder(sock))
        getattr(tcpcp, end)(Holder(sock))
        if end == "release":
            assert hosts.ss(hosts.here, "-tnH") == ""
            sock.close()
            sock = tcpcp.create(ici)
            tcpcp.activate(sock)
    sock.sendall(b"1")
    assert peer.recv(1) == b"1"


class Unclosable(Holder):
    """As uvloop's, whose transport alone may close it; or a file with something to be written."""

    def __init__(self, sock: socket.socket, error: Exception) -> None:
        super().__init__(sock)
        self._error = error

    def close(self) -> None:
        raise self._error


@pytest.mark.parametrize("error", (TypeError("transport sockets do not support close()"), BrokenPipeError()))
def test_released_what_cannot_be_closed(hosts: Hosts, error: Exception) -> None:
    """All of the batch are gone, and what arrives late for them is held and no longer counted as got."""
    pairs = [hosts.connect() for _ in range(2)]
    given = [Unclosable(sock, error) for sock, _ in pairs]
    with hosts.here.entered():
        icis = tcpcp.get_many(given)
        tcpcp.release_many(given)
        assert hosts.ss(hosts.here, "-tnH") == ""
        for one, (_, peer) in zip(given, pairs, strict=True):
            assert is_held(peer)
            with pytest.raises(tcpcp.NotGot):
                tcpcp.renew(one)
        made = tcpcp.create_many(icis)  # what is late is for them still: they live until the end
        for one, (_, peer) in zip(made, pairs, strict=True):
            tcpcp.activate(one)
            one.sendall(b"1")
            assert peer.recv(1) == b"1"
        assert_no_reset(hosts)


@pytest.mark.parametrize("waiting", (False, True))
def test_ssl_is_refused(hosts: Hosts, tmp_path: Path, waiting: bool) -> None:
    """Its keys are in the program: by name, with the remedy, and it goes on."""
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 9 -subj /CN=x"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    sock, peer = hosts.connect()
    wrapped: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: wrapped.append(client.wrap_socket(peer)))
    thread.start()
    tls = server.wrap_socket(sock, server_side=True)
    thread.join()
    if waiting:
        wrapped[0].sendall(b"secret")
        eventually(lambda: tcp_repair.get_inq(tls) > 0, "arrived")
    with hosts.here.entered():
        with pytest.raises(tcpcp.Unsupported, match=r"SSL|TLS"):
            tcpcp.get(tls)
        assert rules(hosts.here) == NOTHING
    assert not tcp_repair.get_repair(tls)
    if not waiting:
        wrapped[0].sendall(b"secret")
    tls.settimeout(5)
    assert tls.recv(100) == b"secret"


# --- in use by another thread meanwhile -----------------------------------------------------------------


@pytest.mark.parametrize("created", (False, True))
def test_used_while_it_is_isolated(hosts: Hosts, created: bool) -> None:
    """Another thread's send() and recv() fail; what it wrote is in no queue afterwards."""
    sock, peer = hosts.connect()
    peer.sendall(b"first")
    eventually(lambda: tcp_repair.get_inq(sock) == 5, "arrived")
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        if created:
            tcpcp.release(sock)
            sock = tcpcp.create(ici)
        sock.setblocking(False)
        with pytest.raises(OSError, match="Invalid argument"):
            sock.send(b"0123456789")
        for flags, says in ((0, "not permitted"), (socket.MSG_PEEK, "Invalid argument")):
            with pytest.raises(OSError, match=says):
                sock.recv(10, flags)
        tcpcp.resume(sock)
    sock.setblocking(True)
    peer.sendall(b"HELLO WORLD")
    sock.shutdown(socket.SHUT_WR)
    got = b""
    while len(got) < 16:
        got += sock.recv(100)
    assert got == b"firstHELLO WORLD"
    peer.settimeout(5)
    assert peer.recv(100) == b""


def test_shut_down_while_it_is_isolated(hosts: Hosts) -> None:
    """shutdown() of another thread: nothing is sent of it while it is isolated; resumed, the peer hears it."""
    sock, peer = hosts.connect()
    with hosts.here.entered():
        tcpcp.get(sock)
        sock.shutdown(socket.SHUT_WR)
        peer.settimeout(0.1)
        with pytest.raises(TimeoutError):
            peer.recv(1)
        tcpcp.resume(sock)
    peer.settimeout(5)
    assert peer.recv(1) == b""
    peer.sendall(b"answer")
    sock.settimeout(5)
    assert sock.recv(10) == b"answer"


def waiting_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """A thread in *call*, and what comes of it."""
    came: list[object] = []

    def run() -> None:
        try:
            came.append(call())
        except OSError as exc:
            came.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    eventually(lambda: is_in_a_call(thread), "it is in the call")
    return thread, came


def forked_holder(sock: socket.socket) -> int:
    """A process that has the socket too, for as long as nobody kills it."""
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the test runner's is no business of the child's
        signal.alarm(20)
        while True:
            signal.pause()
    return pid


@pytest.mark.parametrize("held", ("recv", "poll", "dup", "makefile", "fork"))
@pytest.mark.parametrize("kind", ("v4", "v6"))
def test_released_whoever_holds_it(hosts: Hosts, kind: str, held: str) -> None:
    """The connection ends in the kernel at once, silently, and can be made here again; who waits wakes."""
    sock, peer = hosts.connect(kind)
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    calls = {"recv": lambda: sock.recv(100), "poll": lambda: poll.poll(5000)}
    thread, came = waiting_thread(calls[held]) if held in calls else (None, [])
    kept: object = sock.dup() if held == "dup" else None
    pid = forked_holder(sock) if held == "fork" else 0
    before = sent_by(hosts, hosts.here)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        if held == "makefile":
            kept = sock.makefile("rb")
        tcpcp.release(sock)
        assert held == "makefile" or sock.fileno() == -1
        assert hosts.ss(hosts.here, "-tnH") == ""
        if thread:
            thread.join(3)
            assert not thread.is_alive()
            assert came
        made = tcpcp.create(ici)
        assert sent_by(hosts, hosts.here) == before
        tcpcp.activate(made)
    made.sendall(b"from the new one")
    assert peer.recv(100) == b"from the new one"
    peer.sendall(b"to the new one")
    assert made.recv(100) == b"to the new one"
    assert_no_reset(hosts)
    if pid:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    del kept


@pytest.mark.parametrize("created", (False, True))
def test_what_is_left_to_others_who_hold_it(hosts: Hosts, created: bool) -> None:
    """An ordinary socket without a connection: no repair mode, and no mark to be bound where another listens."""
    sock, _ = hosts.connect()
    with hosts.here.entered(), socket.create_server((hosts.here_ip[4], 0)) as listener:
        kept = sock.dup()
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        if created:
            sock = tcpcp.create(ici)
            kept = sock.dup()
            tcpcp.release(sock)
        assert not tcp_repair.get_repair(kept)
        for says in (errno.ECONNABORTED, errno.ENOTCONN):
            with pytest.raises(OSError, match=os.strerror(says)):
                kept.recv(1)
        with pytest.raises(OSError, match="in use|Invalid"):  # invalid: one that was created is bound still
            kept.bind(listener.getsockname())
        kept.close()


def test_resumed_under_a_waiting_thread(hosts: Hosts) -> None:
    sock, peer = hosts.connect()
    thread, came = waiting_thread(lambda: sock.recv(100))
    with hosts.here.entered():
        tcpcp.get(sock)
        tcpcp.resume(sock)
    peer.sendall(b"hello")
    thread.join(3)
    assert came == [b"hello"]


# --- twice, and never -----------------------------------------------------------------------------------


def test_got_twice(hosts: Hosts) -> None:
    """Refused, in one batch too, and the first get is as it was."""
    (sock, peer), (other, _) = hosts.connect(), hosts.connect()
    with hosts.here.entered():
        first = tcpcp.get(sock)
        for call in (lambda: tcpcp.get(sock), lambda: tcpcp.get_many([other, sock])):
            with pytest.raises(tcpcp.AlreadyGot):
                call()
        assert is_held(peer)
        assert not tcp_repair.get_repair(other)
        with pytest.raises(tcpcp.AlreadyGot):
            tcpcp.get_many([other, other])
        with pytest.raises(tcpcp.AlreadyGot), other.dup() as again:
            tcpcp.get_many([other, again])
        assert not tcp_repair.get_repair(other)
        tcpcp.release(sock)
        made = tcpcp.create(first)
        tcpcp.activate(made)
    made.sendall(b"1")
    assert peer.recv(1) == b"1"


def test_in_repair_mode_by_somebody_else(hosts: Hosts) -> None:
    """CRIU's, say: its recipe would be disturbed."""
    sock, _ = hosts.connect()
    tcp_repair.set_repair(sock, tcp_repair.ON)
    with hosts.here.entered():
        before = everything(sock)
        with pytest.raises(tcpcp.AlreadyGot):
            tcpcp.get(sock)
        assert changed(sock, before) == {}
        assert rules(hosts.here) == NOTHING


@pytest.mark.parametrize("call", ("activate", "release", "resume", "renew"))
def test_never_got(hosts: Hosts, call: str) -> None:
    """A live connection is left alone; no option changes, nothing is sent."""
    (sock, peer), (other, its_peer) = hosts.connect(), hosts.connect()
    with hosts.here.entered():
        before, sent = everything(sock), sent_by(hosts, hosts.here)
        with pytest.raises(tcpcp.NotGot):
            getattr(tcpcp, call)(sock)
        assert (everything(sock), sent_by(hosts, hosts.here)) == (before, sent)
        tcpcp.get(other)
        with pytest.raises(tcpcp.NotGot):
            getattr(tcpcp, f"{call}_many")([other, sock])
        assert is_held(its_peer)
        assert tcp_repair.get_repair(other)
        assert changed(sock, before) == {}
        tcpcp.resume(other)
        with pytest.raises(tcpcp.NotGot):
            getattr(tcpcp, call)(other)
    sock.sendall(b"1")
    assert peer.recv(1) == b"1"


@pytest.mark.parametrize("call", ("activate", "release", "resume", "renew"))
@pytest.mark.parametrize("what", ("fresh", "listening", "udp", "unix", "closed"))
def test_of_other_sockets(hosts: Hosts, call: str, what: str) -> None:
    """An error of the library's, and the socket is as before."""
    with hosts.here.entered():
        sock = {
            "fresh": socket.socket,
            "listening": lambda: socket.create_server((hosts.here_ip[4], 0)),
            "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            "unix": lambda: socket.socketpair()[0],
            "closed": socket.socket,
        }[what]()
        if what == "closed":
            sock.close()
        before = everything(sock) if what != "closed" else None
        with pytest.raises(tcpcp.TcpcpError):
            getattr(tcpcp, call)(sock)
        with pytest.raises(tcpcp.TcpcpError):
            tcpcp.get(sock)
        assert before is None or changed(sock, before) == {}


def test_released_twice(hosts: Hosts) -> None:
    sock, _ = hosts.connect()
    with hosts.here.entered():
        tcpcp.get(sock)
        tcpcp.release(sock)
        for call in (tcpcp.release, tcpcp.resume, tcpcp.activate, tcpcp.renew):
            with pytest.raises(tcpcp.TcpcpError):
                call(sock)


def test_closed_instead_of_released(hosts: Hosts) -> None:
    """A program that closes a socket it has got: its descriptor's number is another's next time."""
    sock, peer = hosts.connect()
    with hosts.here.entered():
        tcpcp.get(sock)
        number = sock.fileno()
        sock.close()
        other, its_peer = hosts.connect()
        os.dup2(other.fileno(), number)
        again = socket.socket(fileno=number)
        with pytest.raises(tcpcp.NotGot):
            tcpcp.resume(again)
        tcpcp.get(again)
        tcpcp.resume(again)
        its_peer.sendall(b"1")
        assert other.recv(1) == b"1"
    assert is_held(peer)
    assert state_of(other) is State.ESTABLISHED
