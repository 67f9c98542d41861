"""Programs without privileges pass connections through the helper; the judge is the peer."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
from asyncio.trsock import TransportSocket
from collections.abc import Iterator

import pytest
from drain import Drain
from helpers import NOBODY, Helper, line, tell, user_program
from netns import Hosts, eventually
from passing import assert_no_reset, deaf, state_of

import tcpcp
from tcpcp import NotGot, Unsupported, helper
from tcpcp.endpoint import isolation
from tcpcp.helper import Client, HelperError
from tcpcp.kernel import tcp_repair

pytestmark = pytest.mark.alone


@pytest.fixture
def running(hosts: Hosts) -> Iterator[Helper]:
    """A helper for nobody, and for root without any rights."""
    running = Helper(hosts.here, "--user", "nobody", "--user", "root")
    yield running
    running.close()


@pytest.fixture
def client(hosts: Hosts, running: Helper) -> Iterator[Client]:
    """One of the test's own, which is in the helper's namespace while it has one."""
    with hosts.here.entered(), helper.connect(running.path) as client:
        yield client


def exchange(sock: socket.socket, peer: socket.socket) -> None:
    """Both ends hear each other."""
    for one, other in ((sock, peer), (peer, sock)):
        one.sendall(b"goes on")
        other.settimeout(5)
        assert other.recv(100) == b"goes on"


def gone(hosts: Hosts, port: int) -> bool:
    return f":{port} " not in hosts.ss(hosts.here, "-tnHa")


SERVER = """
listener = socket.create_server(("10.9.0.1", 0))
say(listener.getsockname()[1])
sock, _ = listener.accept()
listener.close()
channel = socket.socket(fileno=numbers[0])
came = b""
while len(came) < 100_000:
    came += sock.recv(100_000 - len(came))
sock.sendall(b"A" * 100_000)
with helper.connect(path) as passing:
    image = tcpcp.dumps(passing.get(sock))
    channel.sendall(struct.pack("!I", len(image)) + image)
    channel.recv(1)
    passing.release(sock)
    channel.sendall(b"r")
say(os.getuid(), open("/proc/self/status").read().split("CapEff:")[1].split()[0], came.count(b"a"))
input()
"""
SUCCESSOR = """
channel = socket.socket(fileno=numbers[0])
size, = struct.unpack("!I", channel.recv(4))
ici = tcpcp.loads(channel.recv(size, socket.MSG_WAITALL))
channel.sendall(b"c")
channel.recv(1)
with helper.connect(path) as passing:
    sock = passing.create(ici)
    passing.activate(sock)
sock.sendall(b"B" * 100_000)
came = b""
while part := sock.recv(1 << 20):
    came += part
sock.shutdown(socket.SHUT_WR)
say(os.getuid(), os.stat(sock.fileno()).st_uid, came.count(b"a"))
input()
"""


def test_from_one_process_of_nobody_to_another(hosts: Hosts, running: Helper) -> None:
    """Neither has a capability; every byte arrives, both ways; the new socket is the second process's own."""
    ours, theirs = socket.socketpair()
    with (
        user_program(running, SERVER, [ours.fileno()]) as server,
        user_program(running, SUCCESSOR, [theirs.fileno()]) as successor,
    ):
        with hosts.there.entered():
            peer = socket.create_connection((hosts.here_ip[4], int(line(server))))
        drain = Drain(peer)
        peer.sendall(b"a" * 300_000)
        assert line(server) == f"{NOBODY} {'0' * 16} 100000"
        peer.shutdown(socket.SHUT_WR)
        assert line(successor) == f"{NOBODY} {NOBODY} 200000"
        drain.finished(b"A" * 100_000 + b"B" * 100_000)
    assert_no_reset(hosts)
    ours.close(), theirs.close(), peer.close()


@pytest.mark.parametrize("kind", ["v4", "v6", "mapped"])
def test_many_at_once(hosts: Hosts, client: Client, kind: str) -> None:
    """get_many with tags, create_many; queues of megabytes."""
    pairs = [hosts.connect(kind) for _ in range(20)]
    socks = [sock for sock, _ in pairs]
    with deaf(hosts.there):
        for sock in socks:
            sock.setblocking(False)
            assert sock.send(b"x" * 300_000)
            sock.setblocking(True)
        queued = [tcp_repair.get_outq(sock) for sock in socks]
        icis = client.get_many(list(enumerate(socks)))
        client.release_many(socks)
        made = client.create_many(icis)
        client.activate_many(made)
    assert [ici.tag for ici in icis] == list(range(20))
    assert [len(ici.send_queue.sent + ici.send_queue.unsent) for ici in icis] == queued
    for sock, (_, peer), ici in zip(made, pairs, icis, strict=True):
        drain = Drain(peer)
        sock.shutdown(socket.SHUT_WR)
        drain.finished(b"x" * len(ici.send_queue.sent + ici.send_queue.unsent))
        sock.close(), peer.close()


def test_what_can_be_gone_over_once(hosts: Hosts, client: Client) -> None:
    """Generators, as the library takes them."""
    pairs = [hosts.connect() for _ in range(3)]
    socks = [sock for sock, _ in pairs]
    client.get_many(iter(socks))
    client.renew_many(iter(socks))
    client.resume_many(iter(socks))
    icis = client.get_many(iter(socks))
    client.release_many(iter(socks))
    made = client.create_many(iter(icis))
    client.activate_many(iter(made))
    for sock, (_, peer) in zip(made, pairs, strict=True):
        exchange(sock, peer)
    assert_no_reset(hosts)


def test_resume_and_renew(hosts: Hosts, client: Client) -> None:
    sock, peer = hosts.connect()
    client.get(sock)
    client.renew(sock)
    client.resume(sock)
    exchange(sock, peer)
    client.get(sock)  # and again
    client.activate(sock)
    exchange(sock, peer)
    with pytest.raises(NotGot):
        client.renew(sock)


def test_what_is_no_connection(hosts: Hosts, running: Helper, client: Client) -> None:
    """A listening socket, UDP, a pipe, a file, a Unix socket, a socket that was never connected: an error each,
    and the helper goes on."""

    class Pipe:
        def __init__(self, number: int) -> None:
            self.fileno = lambda: number

    reading, writing = os.pipe()
    with hosts.here.entered():
        listener, fresh = socket.create_server((hosts.here_ip[4], 0)), socket.socket()
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    unix, other = socket.socketpair()
    with open(__file__) as file:  # noqa: PTH123
        for one in (listener, fresh, datagrams, unix, Pipe(reading), file):
            for call in (client.get, client.resume, client.release):
                with pytest.raises((Unsupported, NotGot)):
                    call(one)  # type: ignore[arg-type]
    with hosts.there.entered():
        peer = socket.create_connection(listener.getsockname())
    sock, _ = listener.accept()  # it listens on
    client.get(sock)
    client.resume(sock)
    exchange(sock, peer)
    for socket_ in (unix, other, listener, fresh, datagrams):
        socket_.close()
    os.close(reading), os.close(writing)


GETS_AND_WAITS = """
sock = socket.socket(fileno=numbers[0])
passing = helper.connect(path)
ici = passing.get(sock)
say("got")
input()
"""
CREATES_AND_WAITS = """
sock = socket.socket(fileno=numbers[0])
passing = helper.connect(path)
ici = passing.get(sock)
passing.release(sock)
made = passing.create(ici)
say("got")
input()
"""


def test_a_program_that_is_killed_ends_silently(hosts: Hosts, running: Helper) -> None:
    """It may have given its ICI away: no FIN, no reset, and what the peer sends stays unanswered."""
    sock, peer = hosts.connect()
    port = sock.getsockname()[1]
    with user_program(running, GETS_AND_WAITS, [sock.fileno()]) as program:
        assert line(program) == "got"
        sock.close()
        program.kill()
        eventually(lambda: gone(hosts, port), "the helper lets go")
    peer.sendall(b"is anybody there?")
    peer.settimeout(0.3)
    with pytest.raises(TimeoutError):
        peer.recv(1)
    assert_no_reset(hosts)


def test_what_was_created_and_never_ran_ends_silently(hosts: Hosts, running: Helper) -> None:
    sock, peer = hosts.connect()
    port = sock.getsockname()[1]
    with user_program(running, CREATES_AND_WAITS, [sock.fileno()]) as program:
        assert line(program) == "got"
        sock.close()
        assert not gone(hosts, port)
        program.kill()
        eventually(lambda: gone(hosts, port), "the helper lets go")
    peer.sendall(b"is anybody there?")
    peer.settimeout(0.3)
    with pytest.raises(TimeoutError):
        peer.recv(1)
    assert_no_reset(hosts)


def test_who_leaves_in_order_goes_on_with_what_he_got(hosts: Hosts, running: Helper, client: Client) -> None:
    sock, peer = hosts.connect()
    client.get(sock)
    client.close()
    exchange(sock, peer)
    assert "Traceback" not in running.log()


def test_a_helper_that_is_ended_lets_finish(hosts: Hosts, running: Helper, client: Client) -> None:
    """It begins nothing new, waits for what is held, and is gone."""
    sock, peer = hosts.connect()
    other, _ = hosts.connect()
    client.get(sock)
    running.process.send_signal(signal.SIGTERM)
    eventually(lambda: not os.path.exists(running.path) or ending(client, other), "it is ending")  # noqa: PTH110
    client.resume(sock)
    exchange(sock, peer)
    assert running.process.wait(10) == 0
    assert not os.path.exists(running.path)  # noqa: PTH110


def ending(client: Client, sock: socket.socket) -> bool:
    try:
        client.get(sock)
    except HelperError as error:
        return "nothing new" in str(error)
    client.resume(sock)
    return False


def test_a_server_that_is_killed_leaves_its_workers_to_finish(
    hosts: Hosts, running: Helper, client: Client
) -> None:
    sock, peer = hosts.connect()
    client.get(sock)
    (worker,) = running.workers()
    running.process.kill()
    running.process.wait()
    client.resume(sock)
    exchange(sock, peer)
    eventually(lambda: not alive(worker), "the worker ends", 10)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_that_is_killed(hosts: Hosts, running: Helper, client: Client) -> None:
    """The caller is told; the next is served; what was got is in repair mode still."""
    sock, _ = hosts.connect()
    client.get(sock)
    (worker,) = running.workers()
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: not alive(worker), "it is dead")
    with pytest.raises(HelperError, match="gone"):
        client.resume(sock)
    assert tcp_repair.get_int(sock, tcp_repair.TCP, tcp_repair.TCP_REPAIR, "TCP_REPAIR") == 1
    with hosts.here.entered(), helper.connect(running.path) as again:
        other, peer = hosts.connect()
        again.get(other)
        again.resume(other)
        exchange(other, peer)


def test_one_user_does_not_keep_another_waiting(hosts: Hosts, running: Helper, client: Client) -> None:
    """One whose worker does not answer, however he brought that about."""
    sock, peer = hosts.connect()
    mine = running.workers()
    other, _ = hosts.connect()
    with user_program(running, GETS_AND_WAITS, [other.fileno()]) as program:
        assert line(program) == "got"
        (theirs,) = set(running.workers()) - set(mine)
        os.kill(theirs, signal.SIGSTOP)
        client.get(sock)
        client.resume(sock)
        exchange(sock, peer)
        os.kill(theirs, signal.SIGCONT)
        tell(program)


def test_nothing_is_left(hosts: Hosts, running: Helper) -> None:
    """Neither a filter nor a socket, when everything was finished and the helper has ended."""
    sock, peer = hosts.connect()
    with hosts.here.entered():
        with helper.connect(running.path) as client:
            client.get(sock)
            assert len(isolation.tables()) == 1
            client.resume(sock)
            assert isolation.tables() == []
        exchange(sock, peer)
        running.process.terminate()
        assert running.process.wait(10) == 0
        assert isolation.tables() == []
    assert state_of(sock) is tcpcp.State.ESTABLISHED
    sock.close(), peer.close()


def test_what_stands_for_a_socket(hosts: Hosts, client: Client) -> None:
    """asyncio's TransportSocket has no close(); one that encrypts is refused by name, as in the library."""
    sock, peer = hosts.connect()
    standing = TransportSocket(sock)
    client.get(standing)
    client.resume(standing)
    exchange(sock, peer)
    context = ssl.create_default_context()
    encrypted = context.wrap_socket(sock, server_hostname="there", do_handshake_on_connect=False)
    with pytest.raises(Unsupported, match="TLS"):
        client.get(encrypted)
    exchange(socket.socket(fileno=encrypted.detach()), peer)


class Interrupted(Exception):
    """Raised by a signal's handler."""


@contextlib.contextmanager
def interrupted(worker: int) -> Iterator[None]:
    """A signal comes while *worker* has not answered yet; its handler raises."""

    def handler(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, handler)
    os.kill(worker, signal.SIGSTOP)
    # Not a thread, to which the kernel might give the signal.
    kills = f"sleep 0.2; kill -USR1 {os.getpid()}; sleep 0.2; kill -CONT {worker}"
    killing = subprocess.Popen(["sh", "-c", kills])
    try:
        with pytest.raises(Interrupted):
            yield
    finally:
        killing.wait()
        signal.signal(signal.SIGUSR1, before)


def test_interrupted_in_get(hosts: Hosts, running: Helper, client: Client) -> None:
    """It runs as before, and so does the connection to the helper."""
    sock, peer = hosts.connect()
    with interrupted(running.workers()[0]):
        client.get(sock)
    exchange(sock, peer)
    client.get(sock)
    client.resume(sock)
    exchange(sock, peer)


def test_interrupted_in_create(hosts: Hosts, running: Helper, client: Client) -> None:
    """Nothing of it is left, so that it can be created once more."""
    sock, peer = hosts.connect()
    ici = client.get(sock)
    client.release(sock)
    with interrupted(running.workers()[0]):
        client.create(ici)
    made = client.create(ici)
    client.activate(made)
    exchange(made, peer)
    assert_no_reset(hosts)


def test_a_client_that_was_closed(hosts: Hosts, running: Helper) -> None:
    """Every call says so, in the same way, and the socket is as before."""
    sock, peer = hosts.connect()
    with hosts.here.entered(), helper.connect(running.path) as client:
        ici = client.get(sock)
        client.resume(sock)
    calls = (client.get, client.activate, client.release, client.resume, client.renew)
    for call in (*calls, lambda _: client.create(ici)):
        with pytest.raises(HelperError, match="closed"):
            call(sock)
    exchange(sock, peer)
