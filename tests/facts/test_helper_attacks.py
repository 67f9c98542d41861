"""What those who reach the helper try, and do not get; what they hold, they hold."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from helpers import CAPABILITIES, STRANGER, Helper, line, tell, user_program
from netns import Hosts
from passing import assert_no_reset
from test_helper import GETS_AND_WAITS, exchange

import tcpcp
from tcpcp import AlreadyGot, Ici, NotGot, OtherNamespace, PermissionDenied, Unsupported, helper
from tcpcp.helper import Client, HelperError, descriptors, protocol
from tcpcp.helper.protocol import Operation, ProtocolError, Request
from tcpcp.record.ici import Endpoint

_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def running(hosts: Hosts) -> Iterator[Helper]:
    bounds = ["--max-connections", "4", "--max-held", "5", "--max-image-bytes", "100000"]
    running = Helper(hosts.here, "--user", "nobody", "--user", "root", *bounds)
    yield running
    running.close()


@pytest.fixture
def client(hosts: Hosts, running: Helper) -> Iterator[Client]:
    """One of the test's own, which is in the helper's namespace while it has one."""
    with hosts.here.entered(), helper.connect(running.path) as client:
        yield client


def passed_ici(hosts: Hosts, client: Client) -> tuple[Ici, socket.socket]:
    """The ICI of a connection that is not on this host any more, and its peer."""
    sock, peer = hosts.connect()
    ici = client.get(sock)
    client.release(sock)
    return ici, peer


ASKS = """
try:
    helper.connect(path)
except tcpcp.TcpcpError as error:
    say(type(error).__name__)
"""


def test_a_user_who_is_not_named(running: Helper) -> None:
    with user_program(running, ASKS, uid=STRANGER) as program:
        assert line(program) == "PermissionDenied"
    assert f"user {STRANGER}" in running.log()


def test_somebody_in_another_network_namespace(hosts: Hosts, running: Helper) -> None:
    """He would come out of it with a socket that create makes."""
    with hosts.there.entered(), pytest.raises(OtherNamespace):
        helper.connect(running.path)


def test_a_socket_of_another_namespace(hosts: Hosts, client: Client) -> None:
    sock, peer = hosts.connect()
    with pytest.raises(OtherNamespace):
        client.get(peer)
    exchange(sock, peer)


def test_what_another_user_has_got(hosts: Hosts, running: Helper, client: Client) -> None:
    """To hold a descriptor of it is not enough."""
    sock, peer = hosts.connect()
    with user_program(running, GETS_AND_WAITS, [sock.fileno()]) as program:
        assert line(program) == "got"
        for call in (client.resume, client.activate, client.release, client.renew):
            with pytest.raises(NotGot):
                call(sock)
        with pytest.raises(AlreadyGot):
            client.get(sock)
        peer.sendall(b"is not heard")
        sock.setblocking(False)
        with pytest.raises(PermissionError):
            sock.recv(1)
        tell(program)
    assert_no_reset(hosts)


def test_what_nobody_has_got(hosts: Hosts, client: Client) -> None:
    sock, peer = hosts.connect()
    for call in (client.resume, client.activate, client.release, client.renew):
        with pytest.raises(NotGot):
            call(sock)
    exchange(sock, peer)
    client.get(sock)
    for again in (sock, sock.dup()):
        with pytest.raises(AlreadyGot):
            client.get(again)
    client.resume(sock.dup())  # any descriptor of it will do
    exchange(sock, peer)


def disconnect(sock: socket.socket) -> None:
    assert _libc.connect(sock.fileno(), struct.pack("=H14x", socket.AF_UNSPEC), 16) == 0


LISTENS = """
listener = socket.create_server(("10.9.0.1", 0))
say(listener.getsockname()[1])
input()
"""


@pytest.mark.parametrize("made", [False, True], ids=["got", "created"])
def test_a_port_where_another_user_listens_is_not_to_be_had(
    hosts: Hosts, running: Helper, client: Client, made: bool
) -> None:
    """In repair mode the kernel would bind the socket to any port (SK_FORCE_REUSE)."""
    sock, _ = hosts.connect()
    ici = client.get(sock)
    if made:
        client.release(sock)
        sock = client.create(ici)
    with user_program(running, LISTENS) as listening:
        port = int(line(listening))
        disconnect(sock)
        with pytest.raises(OSError) as refused:
            sock.bind((hosts.here_ip[4], port))
        assert refused.value.errno == (errno.EINVAL if made else errno.EADDRINUSE)  # bound for good, or anew
    with pytest.raises(Unsupported, match="changed"):
        client.resume(sock)
    with pytest.raises(NotGot):
        client.resume(sock)


#: Waits for the moment in which it is in repair mode, and not harmless yet.
HURRIES = """
import ctypes
connect = ctypes.CDLL(None).connect
sock, port, unspecified = socket.socket(fileno=numbers[0]), numbers[1], bytes(16)
say("ready")
while not sock.getsockopt(6, 19):
    pass
connect(sock.fileno(), unspecified, 16)
try:
    sock.bind(("10.9.0.1", port))
    sock.listen()
    say("listens")
except OSError as error:
    say(error)
input()
"""


def test_who_is_quicker_has_nothing_of_it(hosts: Hosts, running: Helper, client: Client) -> None:
    """He may listen for less than the get takes; when it is over he does not, and the port's owner does."""
    with hosts.here.entered():
        listener = socket.create_server((hosts.here_ip[4], 0), backlog=50)
    port = listener.getsockname()[1]
    listener.settimeout(5)
    quick = 0
    for _ in range(10):
        sock, peer = hosts.connect()
        with user_program(running, HURRIES, [sock.fileno()], words=[str(port)]) as program:
            assert line(program) == "ready"
            with contextlib.suppress(tcpcp.TcpcpError):
                client.get(sock)
            quick += line(program) == "listens"
            with hosts.there.entered():
                callers = [socket.create_connection((hosts.here_ip[4], port)) for _ in range(4)]
            for caller in callers:
                listener.accept()[0].close()
                caller.close()
            with contextlib.suppress(tcpcp.TcpcpError):
                client.resume(sock)
        sock.close(), peer.close()
    print(f"quick enough: {quick} of 10")


def test_a_connection_in_the_place_of_what_was_got(hosts: Hosts, client: Client) -> None:
    """It is disconnected, and nobody else's isolation is lifted."""
    sock, _ = hosts.connect()
    client.get(sock)
    disconnect(sock)
    sock.bind((hosts.here_ip[4], 0))
    sock.connect((hosts.there_ip[4], 9))  # in repair mode nobody is asked
    with pytest.raises(Unsupported, match="changed"):
        client.activate(sock)
    with pytest.raises(OSError, match="not connected"):
        sock.getpeername()


CLAIMS = {
    "low port": ({"local": 80}, "port 80"),
    "mark": ({"options": {"SO_MARK": 1}}, "SO_MARK"),
    "priority": ({"options": {"SO_PRIORITY": 7}}, "SO_PRIORITY"),
    "transparent": ({"options": {"IP_TRANSPARENT": 1}}, "IP_TRANSPARENT"),
    "device": ({"device": "here0"}, "SO_BINDTODEVICE"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_claims_that_need_a_privilege(hosts: Hosts, client: Client, name: str) -> None:
    ici, peer = passed_ici(hosts, client)
    values, expected = CLAIMS[name]
    changes = dict(values)
    if "options" in changes:
        changes["options"] = {**ici.options, **changes["options"]}
    if "local" in changes:
        changes["local"] = Endpoint(ici.local.ip, changes["local"])
    with pytest.raises(PermissionDenied, match=expected):
        client.create(dataclasses.replace(ici, **changes))  # type: ignore[arg-type]
    made = client.create(ici)
    client.activate(made)
    exchange(made, peer)


def test_the_end_of_another_user(hosts: Hosts, running: Helper, client: Client) -> None:
    ici, _ = passed_ici(hosts, client)
    with user_program(running, LISTENS) as listening:
        port = int(line(listening))
        with pytest.raises(PermissionDenied, match="belongs to user 65534"):
            client.create(ici.at(port=port))
        with hosts.there.entered():
            socket.create_connection((hosts.here_ip[4], port)).close()  # it listens on
    client.create(ici.at(port=port)).close()  # nobody's now


def test_rights_that_were_granted(hosts: Hosts) -> None:
    capabilities = f"{CAPABILITIES},+net_bind_service"
    running = Helper(hosts.here, "--user", "root:80,options", capabilities=capabilities)
    with hosts.here.entered(), helper.connect(running.path) as client:
        ici, _ = passed_ici(hosts, client)
        ici = dataclasses.replace(ici, options={**ici.options, "SO_MARK": 7})
        made = client.create(ici.at(port=80))
        assert made.getsockname()[1] == 80
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 7
        with pytest.raises(PermissionDenied):
            client.create(ici.at(port=81))
    running.close()


def test_sockets_to_create_with_that_are_something_else(hosts: Hosts, client: Client) -> None:
    """A live connection of the caller's stays as it is; a bound one has another end than was looked at."""
    ici, _ = passed_ici(hosts, client)
    image = descriptors.seal(tcpcp.dumps(ici))
    sock, peer = hosts.connect()
    with hosts.here.entered():
        bound, listening, fresh = (
            socket.socket(),
            socket.create_server((hosts.here_ip[4], 0)),
            socket.socket(),
        )
    bound.bind((hosts.here_ip[4], 0))
    for one in (sock, bound, listening):
        with pytest.raises(Unsupported):
            client._ask(Operation.CREATE, [one], [image])
    exchange(sock, peer)
    client._ask(Operation.CREATE, [fresh], [image])
    with pytest.raises(AlreadyGot):
        client._ask(Operation.CREATE, [fresh], [image])
    os.close(image)


# --- bounds ---------------------------------------------------------------------------------------------


def test_connections_are_bounded(hosts: Hosts, running: Helper) -> None:
    with contextlib.ExitStack() as stack, hosts.here.entered():
        for _ in range(4):
            stack.enter_context(helper.connect(running.path))
        with pytest.raises(HelperError, match="4 connections"):
            helper.connect(running.path)


def test_held_sockets_are_bounded(hosts: Hosts, client: Client) -> None:
    socks = [hosts.connect()[0] for _ in range(6)]
    with pytest.raises(HelperError, match="the limit is 5"):
        client.get_many(socks)
    client.get_many(socks[:5])
    with pytest.raises(HelperError, match="the limit is 5"):
        client.get(socks[5])


def test_released_sockets_are_bounded(hosts: Hosts, running: Helper, client: Client) -> None:
    """Each is in the packet filter for another minute; to leave and come again does not help."""
    socks = [hosts.connect()[0] for _ in range(6)]
    client.get_many(socks[:3])
    client.release_many(socks[:3])
    with pytest.raises(HelperError, match="3 were released in the last 60 s, together the limit is 5"):
        client.get_many(socks[3:])
    client.get_many(socks[3:5])
    client.resume_many(socks[3:5])
    client.close()
    with hosts.here.entered(), helper.connect(running.path) as again:
        with pytest.raises(HelperError, match="3 were released"):
            again.get_many(socks[3:])
        again.get_many(socks[3:5])


def test_sizes_are_bounded(hosts: Hosts, client: Client) -> None:
    sock, peer = hosts.connect()
    peer.sendall(bytes(200_000))
    with pytest.raises(HelperError, match="100000 at a time"):
        client.get(sock)
    assert len(sock.recv(200_000, socket.MSG_WAITALL)) == 200_000
    image, fresh = descriptors.seal(bytes(100_001)), socket.socket()
    with pytest.raises(ProtocolError, match="100001 bytes"):
        client._ask(Operation.CREATE, [fresh], [image])
    os.close(image)
    exchange(sock, peer)


# --- what no client of ours sends ------------------------------------------------------------------------

RESUME = protocol.pack_request(Request(Operation.RESUME, 1))
CREATE = protocol.pack_request(Request(Operation.CREATE, 1))


@pytest.mark.parametrize(
    ("packet", "beside"),
    [
        (b"GET / HTTP/1.1", 0),
        (b"x" * 60_000, 0),
        (RESUME, 0),
        (RESUME, 2),
        (RESUME, 250),
        (CREATE, 1),
        (RESUME[:-1], 1),
        (b"", 3),
    ],
)
def test_packets_that_make_no_sense(
    hosts: Hosts, running: Helper, client: Client, packet: bytes, beside: int
) -> None:
    """Their connection is closed, what came with them too, and the others go on."""
    sock, peer = hosts.connect()
    client.get(sock)
    (worker,) = running.workers()
    before = len(os.listdir(f"/proc/{worker}/fd"))  # noqa: PTH208
    with hosts.here.entered():
        other = helper.connect(running.path)
    connection = other._connection
    reading, writing = os.pipe()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"={beside}i", *[reading] * beside))]
    connection.sendmsg([packet], control if beside else [])
    os.close(reading)
    while connection.recv(100_000):
        pass
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"nobody has the other end")
    client.resume(sock)
    exchange(sock, peer)
    assert len(os.listdir(f"/proc/{worker}/fd")) < before  # noqa: PTH208


def test_an_image_that_may_still_change(hosts: Hosts, running: Helper, client: Client) -> None:
    ici, _ = passed_ici(hosts, client)
    image = os.memfd_create("ici", os.MFD_ALLOW_SEALING)
    os.write(image, tcpcp.dumps(ici))
    with pytest.raises(ProtocolError, match="sealed"):
        client._ask(Operation.CREATE, [socket.socket()], [image])
    os.close(image)
    assert "Traceback" not in running.log()


def test_bytes_that_are_no_ici(client: Client) -> None:
    image = descriptors.seal(b"no ICI at all")
    with pytest.raises(tcpcp.CodecError, match="offset 0"):
        client._ask(Operation.CREATE, [socket.socket()], [image])
    os.close(image)
