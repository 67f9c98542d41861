"""Every option that an ICI carries is on the rebuilt socket what it was; the judge is getsockopt() of both."""

from __future__ import annotations

import errno
import socket
import struct
from pathlib import Path

import pytest
from netns import Hosts
from passing import assert_no_reset, pass_on

from tcpcp.endpoint import calls, host, socket_options
from tcpcp.kernel import socket_filter
from tcpcp.record.option_names import IPPROTO_IP, IPPROTO_IPV6, OPTIONS, Option

#: What is set; none of it is what a socket starts with.
VALUES = {
    "SO_DEBUG": 1, "SO_REUSEADDR": 1, "SO_REUSEPORT": 1, "SO_DONTROUTE": 1, "SO_KEEPALIVE": 1, "SO_OOBINLINE": 1,
    "SO_SNDBUF": 100_000, "SO_RCVBUF": 150_000, "SO_PRIORITY": 5, "SO_LINGER": 7, "SO_RCVTIMEO": 2_500_000,
    "SO_SNDTIMEO": 9_000_000_000, "SO_RCVLOWAT": 2, "SO_PEEK_OFF": 3, "SO_LOCK_FILTER": 1, "SO_BUSY_POLL": 50,
    "SO_PREFER_BUSY_POLL": 1, "SO_TXREHASH": 0, "SO_MARK": 0x80000001, "SO_MAX_PACING_RATE": 1_000_000_000,
    "SO_ZEROCOPY": 1, "TCP_NODELAY": 1, "TCP_CORK": 1, "TCP_KEEPIDLE": 77, "TCP_KEEPINTVL": 33, "TCP_KEEPCNT": 4,
    "TCP_LINGER2": 7, "TCP_WINDOW_CLAMP": 20_000, "TCP_QUICKACK": 0, "TCP_THIN_LINEAR_TIMEOUTS": 1,
    "TCP_USER_TIMEOUT": 12345, "TCP_NOTSENT_LOWAT": 4096, "TCP_INQ": 1, "TCP_TX_DELAY": 1000,
    "TCP_RTO_MAX_MS": 60_000, "TCP_RTO_MIN_US": 150_000, "TCP_DELACK_MAX_US": 100_000, "IP_TOS": 0x10,
    "IP_TTL": 33, "IP_MTU_DISCOVER": 2, "IP_RECVERR": 1, "IP_FREEBIND": 1, "IP_TRANSPARENT": 1, "IP_MINTTL": 3,
    "IP_RECVERR_RFC4884": 1, "IPV6_UNICAST_HOPS": 33, "IPV6_MTU_DISCOVER": 2, "IPV6_RECVERR": 1,
    "IPV6_RECVERR_RFC4884": 1, "IPV6_TCLASS": 0x10, "IPV6_AUTOFLOWLABEL": 0, "IPV6_MINHOPCOUNT": 3,
    "IPV6_TRANSPARENT": 1, "IPV6_FREEBIND": 1,
}  # fmt: skip
#: Of these one at most is on.
TIMESTAMPS = ("SO_TIMESTAMP", "SO_TIMESTAMPNS", "SO_TIMESTAMP_NEW", "SO_TIMESTAMPNS_NEW")
#: Follows from the two sizes; and, of a socket that is bound, cannot be set.
OTHERS = {"SO_BUF_LOCK", "IPV6_V6ONLY"}
#: ret #262144: everything passes.
FILTER = bytes.fromhex("0006000000040000")


def test_none_is_forgotten() -> None:
    connected = {name for name, option in OPTIONS.items() if not option.listening_only}
    assert VALUES.keys() | set(TIMESTAMPS) | OTHERS == connected


def put(sock: socket.socket, option: Option, value: int) -> bool:
    """Set an option without the code under test; whether this kernel has it."""
    if option.name == "SO_LINGER":
        raw = struct.pack("=2i", 1, value)
    elif option.name.endswith("TIMEO"):
        raw = struct.pack("@2l", *divmod(value, 1_000_000))
    else:
        raw = struct.pack("=I", value)
    try:
        sock.setsockopt(option.level, option.number, raw)
    except OSError as exc:
        assert exc.errno == errno.ENOPROTOOPT, option.name
        return False
    return True


def raw_of(sock: socket.socket, option: Option) -> bytes:
    return sock.getsockopt(option.level, option.number, 16)


def meant_for(kind: str) -> list[Option]:
    """What a socket of that kind has: an IPv6 connection is not asked for what IPv4 packets are sent with."""
    level = {"v4": IPPROTO_IPV6, "v6": IPPROTO_IP, "mapped": None}[kind]
    return [OPTIONS[name] for name in VALUES if OPTIONS[name].level != level]


@pytest.mark.parametrize("kind", ("v4", "v6", "mapped"))
def test_every_option(hosts: Hosts, kind: str) -> None:
    sock, peer = hosts.connect(kind)
    with hosts.here.entered(), socket.socket(sock.family) as fresh:
        starts = {option.name: raw_of(fresh, option) for option in meant_for(kind) if has(fresh, option)}
    socket_filter.attach(sock, FILTER)
    chosen = [option for option in meant_for(kind) if put(sock, option, VALUES[option.name])]
    assert len(chosen) > 35
    before = {option.name: raw_of(sock, option) for option in (*chosen, OPTIONS["SO_BUF_LOCK"])}
    assert [name for name in starts if name in before and before[name] == starts[name]] == []
    ici, made = pass_on(hosts, sock)
    assert {name: raw_of(made, OPTIONS[name]) for name in before} == before
    assert (ici.options["SO_SNDBUF"], ici.options["SO_RCVBUF"], ici.options["SO_BUF_LOCK"]) == (
        200_000,
        300_000,
        3,
    )
    assert ici.options["SO_SNDTIMEO"] == 9_000_000_000
    if kind != "v4":
        v6only = OPTIONS["IPV6_V6ONLY"]
        assert ici.options[v6only.name] == made.getsockopt(v6only.level, v6only.number) == (kind == "v6")
    peer.sendall(b"to you")
    assert made.recv(10) == b"to you"
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes(8))
    assert_no_reset(hosts)


def test_what_is_set_on_a_got_socket_is_not_passed(hosts: Hosts) -> None:
    """Nobody looks for it, as the docstring of get says: release loses it, the new socket is as the ICI says."""
    sock, _peer = hosts.connect()
    with hosts.here.entered():
        ici = calls.get(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        calls.release(sock)
        made = calls.create(ici)
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
        calls.release(made)


def test_what_is_set_on_a_got_socket_stays_where_it_is_resumed(hosts: Hosts) -> None:
    """But for SO_KEEPALIVE, which is off as long as the socket is isolated."""
    sock, _peer = hosts.connect()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        (socket.IPPROTO_TCP, socket.TCP_NODELAY): 1,
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT): 9000,
        (socket.SOL_SOCKET, socket.SO_REUSEADDR): 0,
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 0,
    }
    with hosts.here.entered():
        calls.get(sock)
        for option, value in options.items():
            sock.setsockopt(*option, value)
        calls.resume(sock)
    options[socket.SOL_SOCKET, socket.SO_KEEPALIVE] = 1
    assert {option: sock.getsockopt(*option) for option in options} == options


def has(sock: socket.socket, option: Option) -> bool:
    try:
        raw_of(sock, option)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("name", TIMESTAMPS)
def test_timestamps_of_packets(hosts: Hosts, name: str) -> None:
    """Four options for one thing; the kernel says SO_TIMESTAMP_NEW also of SO_TIMESTAMPNS_NEW."""
    sock, _peer = hosts.connect()
    assert put(sock, OPTIONS[name], 1)
    before = {one: raw_of(sock, OPTIONS[one]) for one in TIMESTAMPS}
    assert before[name] == b"\1\0\0\0"
    _, made = pass_on(hosts, sock)
    assert {one: raw_of(made, OPTIONS[one]) for one in TIMESTAMPS} == before


def test_buffers_are_there_and_go_on_being_tuned(hosts: Hosts) -> None:
    """Of a connection that has set nothing."""
    sock, peer = hosts.connect()
    sizes = [sock.getsockopt(socket.SOL_SOCKET, number) for number in (socket.SO_SNDBUF, socket.SO_RCVBUF)]
    ici, made = pass_on(hosts, sock)
    assert [ici.options["SO_SNDBUF"], ici.options["SO_RCVBUF"]] == sizes
    assert "SO_BUF_LOCK" not in ici.options
    assert made.getsockopt(socket.SOL_SOCKET, socket_options.SO_BUF_LOCK) == 0
    peer.close()


@pytest.mark.parametrize("priority", (0, 3))
@pytest.mark.parametrize("tos", (0x08, 0x10, 0x18))
@pytest.mark.parametrize("kind", ("v4", "mapped"))
def test_a_priority_that_the_type_of_service_does_not_say(
    hosts: Hosts, kind: str, tos: int, priority: int
) -> None:
    """IP_TOS sets SO_PRIORITY, but not of what a listener with IP_TOS accepts; and it may be set after that."""
    both = OPTIONS["IP_TOS"], OPTIONS["SO_PRIORITY"]
    sock, peer = hosts.connect(kind, setup=lambda listener: listener.setsockopt(IPPROTO_IP, 1, tos))
    assert [sock.getsockopt(one.level, one.number) for one in both] == [tos, 0]
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, priority)
    _, made = pass_on(hosts, sock)
    assert [made.getsockopt(one.level, one.number) for one in both] == [tos, priority]
    peer.close()


@pytest.mark.parametrize("options", ({"IP_TOS": 0x10}, {"IP_TOS": 0x10, "SO_PRIORITY": 3}), ids=str)
def test_a_priority_that_criu_has_restored(hosts: Hosts, options: dict[str, int]) -> None:
    """What is set after it does not change it."""
    priority = options.get("SO_PRIORITY", 0)
    with hosts.here.entered(), socket.socket(socket.AF_INET6) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, priority)
        socket_options.apply_all(sock, options, but_criu_saved=True)
        assert sock.getsockopt(IPPROTO_IP, socket.IP_TOS) == 0x10
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) == priority


def test_ipv6_only_follows_from_the_address(hosts: Hosts) -> None:
    """bind() sets IPV6_V6ONLY, and nothing can change it afterwards; a listener at [::] is bound otherwise."""
    v6only = socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
    with (
        hosts.here.entered(),
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as all_,
    ):
        with hosts.there.entered():
            peer = socket.socket(socket.AF_INET6)
        peer.connect((hosts.here_ip[6], all_.getsockname()[1]))
        sock, _ = all_.accept()
    assert sock.getsockopt(*v6only) == 0
    ici, made = pass_on(hosts, sock)
    assert (ici.options["IPV6_V6ONLY"], made.getsockopt(*v6only)) == (0, 1)
    with pytest.raises(OSError, match="Invalid argument"):
        made.setsockopt(*v6only, 0)
    peer.close()


def test_an_ipv4_mapped_connection_where_sockets_are_ipv6_only(hosts: Hosts) -> None:
    sock, peer = hosts.connect("mapped")
    with hosts.here.entered():
        ici = calls.get(sock)
        calls.release(sock)
        sysctl("ipv6/bindv6only", "1")
        made = calls.create(ici)
        calls.activate(made)
    made.sendall(b"mapped")
    assert peer.recv(10) == b"mapped"


def sysctl(name: str, value: str) -> None:
    Path(f"/proc/sys/net/{name}").write_text(value)


@pytest.mark.parametrize(("locks", "most"), [(0, 2**31 - 1), (1, 2**31 - 1), (2, 150_000), (3, 50_000)])
def test_set_buffers(hosts: Hosts, locks: int, most: int) -> None:
    sock, _peer = hosts.connect()
    wanted = {"SO_SNDBUF": 100_000, "SO_RCVBUF": 200_000, "SO_BUF_LOCK": locks}
    with hosts.here.entered():
        socket_options.set_buffers(sock, wanted, most, most)
    found = [sock.getsockopt(socket.SOL_SOCKET, number) for number in (7, 8, 72)]
    assert found == [min(100_000, most), min(200_000, most), locks]


def test_what_a_listener_has_not_set_is_not_carried(hosts: Hosts) -> None:
    """Its buffers are not locked afterwards; and what it has set is there."""
    with hosts.here.entered():
        tuned, chosen, other = socket.socket(), socket.socket(), socket.socket()
        chosen.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50_000)
        chosen.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
        for one in (tuned, chosen, other):
            one.listen()
        found = socket_options.read_all(tuned)
        assert found.keys() & {"SO_SNDBUF", "SO_RCVBUF", "SO_BUF_LOCK"} == set()
        socket_options.apply_all(other, found)
        assert other.getsockopt(socket.SOL_SOCKET, 72) == 0
        found = socket_options.read_all(chosen)
        assert (found["SO_RCVBUF"], found["SO_BUF_LOCK"], found["TCP_MAXSEG"]) == (100_000, 2, 1000)
        assert "SO_SNDBUF" not in found
        socket_options.apply_all(other, found)
        assert [other.getsockopt(socket.SOL_SOCKET, number) for number in (8, 72)] == [100_000, 2]
        assert other.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == 1000


def test_the_sizes_are_criu_s_to_restore(hosts: Hosts) -> None:
    with hosts.here.entered(), socket.socket() as sock:
        before = [sock.getsockopt(socket.SOL_SOCKET, number) for number in (7, 8, 72)]
        options = {"SO_SNDBUF": 123_456, "SO_RCVBUF": 234_568, "SO_BUF_LOCK": 3, "TCP_LINGER2": 5}
        socket_options.apply_all(sock, options, but_criu_saved=True)
        assert [sock.getsockopt(socket.SOL_SOCKET, number) for number in (7, 8, 72)] == before
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2) == 5


def test_limits_are_those_of_this_namespace_at_this_time(hosts: Hosts) -> None:
    with hosts.here.entered():
        sysctl("ipv4/tcp_rmem", "4096 131072 70000000")
        sysctl("ipv4/tcp_wmem", "4096 16384 80000000")
        here = host.limits()
        sysctl("ipv4/tcp_rmem", "4096 131072 90000000")
        later = host.limits()
    with hosts.there.entered():
        there = host.limits()
    assert (here.max_receive_buffer_bytes, here.max_send_buffer_bytes) == (70_000_000, 80_000_000)
    assert later.max_receive_buffer_bytes == 90_000_000
    assert there.max_receive_buffer_bytes < 70_000_000
