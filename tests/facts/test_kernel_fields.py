"""The peer's last timestamp and the keys of exactly the sockets asked for, by BPF and without."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import resource
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from forking import ended, in_child
from netns import Hosts, Namespace

import tcpcp
from tcpcp.errors import KernelError
from tcpcp.kernel import bpf, diag, socket_layout, tcp_repair
from tcpcp.kernel import fields as kernel_fields
from tcpcp.kernel.fields import KEYED, OWNED, POLICED, UNKNOWN

TCP_MD5SIG, TCP_AO_ADD_KEY = 14, 38
IPPROTO_MPTCP = 262
#: include/uapi/linux/in.h; XFRM_POLICY_IN, OUT, ALLOW and BLOCK of include/uapi/linux/xfrm.h.
IP_XFRM_POLICY, INWARD, OUTWARD, ALLOW, BLOCK = 17, 0, 1, 0, 1
#: include/uapi/linux/bpf.h.
MAP_CREATE, MAP_UPDATE, MAP_TYPE_SOCKMAP = 0, 2, 15
KINDS = ("v4", "v6", "mapped")


@pytest.fixture(autouse=True)
def permitted(request: pytest.FixtureRequest) -> Iterator[None]:
    """The kernel lets us; else the tests that need it say so."""
    kernel_fields.prepare()
    if not kernel_fields._made and "without" not in request.fixturenames:
        pytest.skip(f"the kernel refuses the program: {kernel_fields._refused}")
    yield


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel does not let us."""
    monkeypatch.setattr(kernel_fields, "_made", [])
    monkeypatch.setattr(kernel_fields, "_refused", [OSError()])


def spread(sock: socket.socket, peer: socket.socket) -> int:
    """Put the peer's clock forward, to another time than that of every other connection, and have it sent.

    :return: the clock.
    """
    tcp_repair.set_repair(peer, tcp_repair.ON)
    tcp_repair.set_each(
        peer, [tcp_repair.timestamp((tcp_repair.get_timestamp(peer) + random.getrandbits(29)) % 2**32 & ~1)]
    )
    tcp_repair.set_repair(peer, tcp_repair.OFF_NO_PROBE)
    peer.sendall(b"x")
    assert sock.recv(1) == b"x"
    return tcp_repair.get_timestamp(peer)


def is_recent(value: int | None, clock: int) -> bool:
    return value is not None and 0 <= (clock + 1 - value) % 2**32 < 5000


@pytest.mark.parametrize("kind", KINDS)
def test_each_gets_its_own_in_order(hosts: Hosts, kind: str) -> None:
    pairs = [hosts.connect(kind) for _ in range(5)]
    clocks = [spread(*pair) for pair in pairs]
    order = [3, 0, 4, 4, 1, 2]
    found = kernel_fields.read([pairs[i][0] for i in order])
    assert all(is_recent(one.ts_recent, clocks[i]) for one, i in zip(found, order, strict=True))
    assert [one.keyed for one in found] == [False] * len(order)


def test_of_a_socket_that_nobody_has_asked_anything(hosts: Hosts) -> None:
    """Not even its cookie, which the kernel makes when it is first asked for; and in whatever namespace."""
    sock, peer = hosts.connect()
    peer.sendall(b"x")
    assert sock.recv(1) == b"x"
    clock = tcp_repair.get_timestamp(peer)
    assert is_recent(kernel_fields.read([sock])[0].ts_recent, clock)


def not_tcp(directory: str) -> list[int | socket.socket]:
    """Descriptors of all sorts, some with sockets behind them."""
    path = f"{directory}/unix"
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(path)
    sockets = [
        bound,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP),
        socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_TCP),
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4),
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0),
        *socket.socketpair(),
    ]
    pipe = os.pipe()
    return [
        *sockets,
        *pipe,
        os.open(path, os.O_PATH),
        os.open(directory, os.O_RDONLY),
        os.open("/dev/null", os.O_RDWR),
        os.open("/proc/self/status", os.O_RDONLY),
        os.eventfd(0),
        os.memfd_create("x"),
        os.pidfd_open(os.getpid()),
        os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY),
        bpf.array(8),
    ]


class Number:
    """Something with a fileno()."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number


def test_what_is_no_tcp_socket(hosts: Hosts) -> None:
    sock, _ = hosts.connect()
    with tempfile.TemporaryDirectory() as directory:
        odd = not_tcp(directory)
    try:
        numbers = [one if isinstance(one, int) else one.fileno() for one in odd]
        numbers += [-1, -5, 4000, 1 << 20, (1 << 31) - 1]
        found = kernel_fields.read([*map(Number, numbers), sock])
    finally:
        for one in odd:
            os.close(one) if isinstance(one, int) else one.close()
    assert found[:-1] == [UNKNOWN] * len(numbers)
    assert found[-1] != UNKNOWN


def test_multipath_tcp_is_none() -> None:
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    except OSError:
        pytest.skip("this kernel has no Multipath TCP")
    with sock:
        assert kernel_fields.read([sock]) == [UNKNOWN]


def test_high_descriptors(hosts: Hosts) -> None:
    sock, peer = hosts.connect()
    clock = spread(sock, peer)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 8192), max(limits[1], 8192)))
    try:
        for number in (1023, 1024, 1500, 8191):
            os.dup2(sock.fileno(), number)
            assert is_recent(kernel_fields.read([Number(number)])[0].ts_recent, clock)
            os.close(number)
            assert kernel_fields.read([Number(number)]) == [UNKNOWN]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_eight_threads_at_once(hosts: Hosts) -> None:
    """Each asks for its own connections, and never sees another's."""
    pairs = [hosts.connect() for _ in range(8)]
    clocks = [spread(*pair) for pair in pairs]
    wrong: list[object] = []

    def ask(mine: int) -> None:
        for _ in range(1500):
            other = (mine + 1) % len(pairs)
            found = kernel_fields.read([pairs[mine][0], pairs[other][0]])
            right = [is_recent(one.ts_recent, clocks[i]) for one, i in zip(found, (mine, other), strict=True)]
            if right != [True, True]:
                wrong.append((mine, found))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(pairs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_after_fork_both_go_on(hosts: Hosts) -> None:
    pairs = [hosts.connect() for _ in range(4)]
    clocks = [spread(*pair) for pair in pairs]

    def right(mine: int) -> bool:
        asked = [pairs[mine][0]] * 3
        return all(
            is_recent(one.ts_recent, clocks[mine]) for _ in range(500) for one in kernel_fields.read(asked)
        )

    children = [in_child(lambda mine=mine: right(mine)) for mine in range(3)]  # type: ignore[misc]
    assert right(3)
    assert [ended(pid) for pid in children] == [0, 0, 0]


def test_a_fork_while_another_thread_prepares() -> None:
    with kernel_fields._lock:  # as the other thread would hold it
        assert ended(in_child(lambda: kernel_fields.prepare() is None)) == 0


def test_a_daemon_that_has_closed_all_its_descriptors(hosts: Hosts) -> None:
    sock, peer = hosts.connect()
    clock = spread(sock, peer)

    def check() -> bool:
        kept = os.dup2(sock.fileno(), 500)
        os.closerange(3, kept)
        os.closerange(kept + 1, 2000)
        first = kernel_fields.read([Number(kept)])
        kernel_fields.prepare()
        second = kernel_fields.read([Number(kept)])
        return first == [UNKNOWN] and is_recent(second[0].ts_recent, clock)

    assert ended(in_child(check)) == 0


def test_where_the_kernel_refuses(hosts: Hosts, without: None) -> None:
    sock, _ = hosts.connect()
    kernel_fields.prepare()
    assert kernel_fields.read([sock, sock]) == [UNKNOWN, UNKNOWN]


def test_a_process_without_privileges_gets_nothing(hosts: Hosts) -> None:
    sock, _ = hosts.connect()

    def check() -> bool:
        kernel_fields._made.clear()
        os.setuid(65534)
        kernel_fields.prepare()
        return kernel_fields.read([sock]) == [UNKNOWN]

    assert ended(in_child(check)) == 0


def md5_key(peer: str, key: bytes = b"secret") -> bytes:
    """struct tcp_md5sig; a mapped address is an IPv6 one. Source: include/uapi/linux/tcp.h."""
    family = socket.AF_INET6 if ":" in peer else socket.AF_INET
    ip = socket.inet_pton(family, peer)
    address = struct.pack("=HH4s", family, 0, b"" if family == socket.AF_INET6 else ip)
    address += ip if family == socket.AF_INET6 else b""
    return address.ljust(128, b"\0") + struct.pack("=BBHi80s", 0, 0, len(key), 0, key)


@contextmanager
def signed(hosts: Hosts, kind: str, device: str = "") -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection that is signed by TCP-MD5 in both directions: our end and the peer's."""
    version = 6 if kind == "v6" else 4
    prefix = "::ffff:" if kind == "mapped" else ""
    here, there = prefix + hosts.here_ip[version], hosts.there_ip[version]
    with hosts.here.entered():
        listener = socket.socket(socket.AF_INET if kind == "v4" else socket.AF_INET6)
        if device:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        listener.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, md5_key(prefix + there))
        listener.bind((here, 0))
        listener.listen()
    with hosts.there.entered():
        peer = socket.socket(socket.AF_INET6 if kind == "v6" else socket.AF_INET)
    peer.settimeout(5)
    peer.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, md5_key(hosts.here_ip[version]))
    peer.connect((hosts.here_ip[version], listener.getsockname()[1]))
    sock, _ = listener.accept()
    listener.close()
    peer.sendall(b"signed")
    assert sock.recv(10) == b"signed"
    with closing(sock), closing(peer):
        yield sock, peer


@pytest.mark.parametrize("kind", KINDS)
def test_md5(hosts: Hosts, kind: str) -> None:
    plain, _ = hosts.connect(kind)
    with signed(hosts, kind) as (sock, peer):
        assert [one.keyed for one in kernel_fields.read([plain, sock, peer])] == [False, True, True]
        assert kernel_fields.refused([sock, plain]) == [KEYED, ""]


@pytest.mark.parametrize("device", ("", "here0"))
@pytest.mark.parametrize("kind", KINDS)
def test_md5_without_bpf(hosts: Hosts, kind: str, device: str, without: None) -> None:
    plain, _ = hosts.connect(kind)
    with signed(hosts, kind, device) as (sock, peer):
        with hosts.here.entered():
            assert kernel_fields.refused([sock, plain]) == [KEYED, ""]
        with hosts.there.entered():
            assert kernel_fields.refused([peer]) == [KEYED]


def test_a_connection_that_has_ended_is_not_keyed(hosts: Hosts, without: None) -> None:
    sock, peer = hosts.connect()
    sock.shutdown(socket.SHUT_WR)
    assert peer.recv(1) == b""
    peer.close()
    assert sock.recv(1) == b""
    with hosts.here.entered():
        assert kernel_fields.refused([sock]) == [""]


def test_of_another_namespace_nothing_is_said(hosts: Hosts, without: None) -> None:
    """Rather than that there were no keys."""
    with signed(hosts, "v4") as (sock, _), hosts.there.entered(), pytest.raises(KernelError):
        kernel_fields.refused([sock])


def test_ao(hosts: Hosts) -> None:
    """struct tcp_ao_add; include/uapi/linux/tcp.h."""
    with hosts.here.entered(), socket.socket() as sock:
        address = struct.pack("=HH4s120x", socket.AF_INET, 0, socket.inet_aton(hosts.there_ip[4]))
        key = struct.pack("=64siIHBBBBBB80s", b"hmac(sha1)", 0, 0, 0, 32, 100, 100, 12, 0, 6, b"secret")
        try:
            sock.setsockopt(socket.IPPROTO_TCP, TCP_AO_ADD_KEY, address + key)
        except OSError as exc:
            pytest.skip(f"this kernel has no TCP-AO: {exc}")
        assert kernel_fields.refused([sock]) == [KEYED]


def policy(direction: int, action: int) -> bytes:
    """A policy of IPsec: struct xfrm_userpolicy_info. Source: include/uapi/linux/xfrm.h."""
    selector = struct.pack("=40xHBBB3xiI", socket.AF_INET, 0, 0, 0, 0, 0)
    lifetimes = b"\xff" * 32 + bytes(32)
    return selector + lifetimes + bytes(32) + struct.pack("=IIBBBB4x", 0, 0, direction, action, 0, 0)


@pytest.fixture
def policed(hosts: Hosts) -> tuple[socket.socket, socket.socket]:
    sock, peer = hosts.connect()
    try:
        sock.setsockopt(socket.IPPROTO_IP, IP_XFRM_POLICY, policy(OUTWARD, BLOCK))
    except OSError as exc:
        if exc.errno in (errno.ENOPROTOOPT, errno.EOPNOTSUPP):
            pytest.skip("this kernel has no IPsec")
        raise
    return sock, peer


def test_a_policy_of_its_own(hosts: Hosts, policed: tuple[socket.socket, socket.socket]) -> None:
    """What must not leave stays here: the connection is not passed, and the socket is as before."""
    sock, peer = policed
    plain, _ = hosts.connect()
    with hosts.here.entered():
        assert kernel_fields.refused([sock, plain]) == [POLICED, ""]
        for call in (tcpcp.get, tcpcp.inspect):
            with pytest.raises(tcpcp.Unsupported, match="IPsec policy"):
                call(sock)
        tcpcp.get(plain)
        tcpcp.resume(plain)
    with pytest.raises(BlockingIOError):
        peer.recv(1, socket.MSG_DONTWAIT)


def test_a_policy_that_a_listener_gave_it(hosts: Hosts) -> None:
    """It is inherited (xfrm_sk_clone_policy()), and may be one for what comes in."""
    inward = policy(INWARD, ALLOW)
    try:
        sock, _peer = hosts.connect(
            setup=lambda listener: listener.setsockopt(socket.IPPROTO_IP, IP_XFRM_POLICY, inward)
        )
    except OSError as exc:
        pytest.skip(f"this kernel has no IPsec: {exc}")
    with hosts.here.entered():
        assert kernel_fields.refused([sock]) == [POLICED]


@pytest.fixture
def in_a_map(hosts: Hosts) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection in a map of sockets, which a program may take its bytes by."""
    sock, peer = hosts.connect()
    key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(struct.pack("=I", sock.fileno()))
    try:
        made = bpf._call(MAP_CREATE, "sockmap", struct.pack("=5I", MAP_TYPE_SOCKMAP, 4, 4, 1, 0))
    except KernelError as exc:
        pytest.skip(f"this kernel has no maps of sockets: {exc}")
    both = struct.pack("=IxxxxQQQ", made, ctypes.addressof(key), ctypes.addressof(value), 0)
    bpf._call(MAP_UPDATE, "update", both)
    yield sock, peer
    os.close(made)


def test_in_a_map_of_sockets(hosts: Hosts, in_a_map: tuple[socket.socket, socket.socket]) -> None:
    """What waits there is in no queue that can be read: refused, and the socket is as before."""
    sock, peer = in_a_map
    plain, _ = hosts.connect()
    peer.sendall(b"waits")
    with hosts.here.entered():
        assert kernel_fields.refused([sock, plain]) == [OWNED, ""]
        for call in (tcpcp.get, tcpcp.inspect):
            with pytest.raises(tcpcp.Unsupported, match="sockmap"):
                call(sock)
    assert sock.recv(5, socket.MSG_WAITALL) == b"waits"


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_the_table_is_what_the_whole_table_says(hosts: Hosts, kind: str) -> None:
    sock, peer = hosts.connect(kind)
    peer.sendall(b"12345")
    with hosts.here.entered():
        one, table = diag.one(sock), diag.tcp(details=True)
    assert one in table
    assert (one.inode, one.receive_queue) == (os.fstat(sock.fileno()).st_ino, 5)


def test_a_socket_without_a_connection_is_not_in_the_table() -> None:
    namespace = Namespace()
    with (
        closing(namespace),
        namespace.entered(),
        socket.socket() as sock,
        pytest.raises(KernelError, match="not connected"),
    ):
        diag.one(sock)


def test_a_kernel_built_without_keys(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no such members: then none are set."""
    monkeypatch.setattr(socket_layout, "KEYS", ("tcp_sock.no_such_member", "tcp_sock.none_such"))
    sock, peer = hosts.connect()
    clock = spread(sock, peer)
    with closing(kernel_fields.Reader()) as reader:
        (fields,) = reader.read([sock.fileno()])
    assert is_recent(fields.ts_recent, clock)
    assert (fields.keyed, fields.refused) == (False, "")
