"""Whatever the kernel reports of an option is carried: at the ends of each option and each sysctl behind one."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from netns import Hosts
from passing import assert_no_reset, pass_on

from tcpcp.endpoint import calls, preparation, socket_options
from tcpcp.errors import Unsupported
from tcpcp.record import option_names
from tcpcp.record.option_names import IPPROTO_IP, OPTIONS, Option

#: Sysctl -> the option behind which it is, and its two ends, as the kernel takes them.
SYSCTLS = {
    "ipv4/tcp_keepalive_time": ("TCP_KEEPIDLE", "-5", "2000000"),
    "ipv4/tcp_keepalive_intvl": ("TCP_KEEPINTVL", "0", "2000000"),
    "ipv4/tcp_keepalive_probes": ("TCP_KEEPCNT", "0", "255"),
    "ipv4/tcp_fin_timeout": ("TCP_LINGER2", "-5", "2000000"),
    "ipv4/tcp_rto_min_us": ("TCP_RTO_MIN_US", "1", "2147483647"),
    "ipv4/tcp_rto_max_ms": ("TCP_RTO_MAX_MS", "1000", "120000"),
    "ipv4/ip_default_ttl": ("IP_TTL", "1", "255"),
    "ipv4/ip_no_pmtu_disc": ("IP_MTU_DISCOVER", "0", "3"),
    "ipv6/auto_flowlabels": ("IPV6_AUTOFLOWLABEL", "0", "3"),
    "ipv6/bindv6only": ("IPV6_V6ONLY", "0", "1"),
    "ipv6/conf/here0/hop_limit": ("IPV6_UNICAST_HOPS", "1", "255"),
    "core/txrehash": ("SO_TXREHASH", "0", "1"),
    # What the kernel tunes anyway (test_room.py).
    "ipv4/tcp_rmem": ("SO_RCVBUF", "4096 4096 6291456", "4096 131072 2147483647"),
    "ipv4/tcp_wmem": ("SO_SNDBUF", "4096 4096 4194304", "4096 16384 2147483647"),
}
#: A sysctl has a part in them too, and connections are not asked for the first; the second begins with it always.
OTHERS = {"TCP_SYNCNT", "TCP_WINDOW_CLAMP", "IPV6_MTU_DISCOVER", "SO_MAX_PACING_RATE"}
#: Only the origin's sysctl has these, and where the destination's is another, what comes next.
NEAREST = [
    {
        "TCP_KEEPIDLE": (-5, 1), "TCP_KEEPINTVL": (0, 1), "TCP_KEEPCNT": (0, 1), "TCP_LINGER2": (-5, 60),
        "IP_TTL": (1, 1), "IP_MTU_DISCOVER": (1, 1),
    },
    {
        "TCP_KEEPIDLE": (2000000, 32767), "TCP_KEEPINTVL": (2000000, 32767), "TCP_KEEPCNT": (255, 127),
        "TCP_LINGER2": (2000000, 120), "IP_TTL": (255, 255), "IP_MTU_DISCOVER": (0, 0),
    },
]  # fmt: skip
#: What else than a plain number an option takes at its ends.
TRIED = (-(2**31), -2, -1, 0, 1, 2, 255, 1000, 32767, 200_000, 2**28, 2**31 - 1)
#: What the kernel tunes, and what may be set once only.
TUNED = {"SO_SNDBUF", "SO_RCVBUF", "SO_BUF_LOCK", "SO_LOCK_FILTER", "TCP_WINDOW_CLAMP"}


def test_no_sysctl_is_forgotten() -> None:
    behind = {name for name, option in OPTIONS.items() if option.default is None}
    assert {option for option, *_ in SYSCTLS.values()} | OTHERS == behind


def there(name: str) -> bool:
    return Path(f"/proc/sys/net/{name}").exists()


def set_to(end: int) -> None:
    for name, values in SYSCTLS.items():
        if there(name):
            Path(f"/proc/sys/net/{name}").write_text(values[end])


def said(sock: socket.socket) -> dict[str, int]:
    """What getsockopt() says of each option that a sysctl is behind, as a signed number."""
    names = [option for option, *_ in SYSCTLS.values() if option not in TUNED]
    level = IPPROTO_IP if sock.family == socket.AF_INET6 else option_names.IPPROTO_IPV6
    return {
        name: sock.getsockopt(OPTIONS[name].level, OPTIONS[name].number)
        for name in names
        if OPTIONS[name].level != level
    }


@pytest.mark.parametrize("kind", ("v4", "v6"))
@pytest.mark.parametrize("end", (1, 2))
def test_a_sysctl_at_its_end(hosts: Hosts, kind: str, end: int) -> None:
    """On both hosts: what the connection reports is what it reported."""
    with hosts.here.entered():
        set_to(end)
    sock, peer = hosts.connect(kind)
    before = said(sock)
    ici, made = pass_on(hosts, sock)
    assert said(made) == before
    assert option_names.problems(ici.options, ipv6_socket=ici.ipv6_socket) == ()
    peer.sendall(b"x")
    assert made.recv(10) == b"x"
    assert_no_reset(hosts)


@pytest.mark.parametrize("end", (1, 2))
def test_a_sysctl_that_is_another_at_the_destination(hosts: Hosts, end: int) -> None:
    """Nothing is refused: the option gets the value that comes next."""
    with hosts.here.entered():
        before = {name: Path(f"/proc/sys/net/{name}").read_text() for name in SYSCTLS if there(name)}
        set_to(end)
    sock, peer = hosts.connect()
    expected = NEAREST[end - 1]
    found = said(sock)
    assert {name: found[name] for name in expected} == {name: was for name, (was, _) in expected.items()}
    with hosts.here.entered():
        ici = calls.get(sock)
        calls.release(sock)
        for name, value in before.items():
            Path(f"/proc/sys/net/{name}").write_text(value)
        made = calls.create(ici)
        calls.activate(made)
    found = said(made)
    assert {name: found[name] for name in expected} == {name: then for name, (_, then) in expected.items()}
    if "TCP_RTO_MIN_US" in found:
        assert found["TCP_RTO_MIN_US"] in ((2000, 6666, 8000, 20000) if end == 1 else (200_000,))
    peer.sendall(b"x")
    assert made.recv(10) == b"x"


@pytest.mark.parametrize(
    ("name", "family"),
    [
        (name, family)
        for name in sorted(OPTIONS.keys() - TUNED)
        for family in (socket.AF_INET, socket.AF_INET6)
        if family == socket.AF_INET6 or not OPTIONS[name].ipv6_only
    ],
)
def test_an_option_at_its_ends(hosts: Hosts, name: str, family: int) -> None:
    """Every value that the kernel takes and reports is carried, and is there on another socket."""
    option = OPTIONS[name]
    reported = 0
    with hosts.here.entered():
        for raw in raw_values(option):
            with socket.socket(family) as sock, socket.socket(family) as other:
                if not takes(sock, option, raw):
                    continue
                found = socket_options.read_all(sock)
                assert option_names.problems(found, ipv6_socket=family == socket.AF_INET6) == ()
                socket_options.apply_all(other, {name: found[name]} if name in found else {})
                assert meaning(other, option) == meaning(sock, option), (raw, found)
                reported += 1
    assert reported > 1 or not has(option, family)


def raw_values(option: Option) -> Iterator[bytes]:
    """What setsockopt() is given."""
    for value in TRIED:
        if option.name == "SO_LINGER":
            yield struct.pack("=2i", 1, value)
        elif option.kernel_type == "timeval":
            yield struct.pack("@2l", value, 0)
        else:
            yield struct.pack("=i", value)
    if option.kernel_type == "unsigned long":
        yield from (struct.pack("@L", value) for value in (0, 2**32 - 1, 2**32, 10 * 10**9, 2**64 - 1))


def takes(sock: socket.socket, option: Option, raw: bytes) -> bool:
    try:
        sock.setsockopt(option.level, option.number, raw)
    except OSError as exc:
        assert exc.errno in (errno.EINVAL, errno.ENOPROTOOPT, errno.EDOM, errno.EPERM), option.name
        return False
    return True


def raw_of(sock: socket.socket, option: Option) -> bytes:
    return sock.getsockopt(option.level, option.number, 16)


def meaning(sock: socket.socket, option: Option) -> bytes | int:
    """What getsockopt() says; each number below 0 switches SO_PEEK_OFF off."""
    raw = raw_of(sock, option)
    return max(int.from_bytes(raw, sys.byteorder, signed=True), -1) if option.name == "SO_PEEK_OFF" else raw


def has(option: Option, family: int) -> bool:
    with socket.socket(family) as sock:
        try:
            raw_of(sock, option)
        except OSError:
            return False
    return True


def test_a_listener_of_multipath_tcp(hosts: Hosts) -> None:
    """Go's default: of a peer that speaks plain TCP it accepts a plain connection, with SO_RCVLOWAT 0."""
    with hosts.here.entered():
        try:
            listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
        except OSError:
            pytest.skip("this kernel has no Multipath TCP")
        listening.bind((hosts.here_ip[4], 0))
        listening.listen()
    with hosts.there.entered():
        peer = socket.socket()
    peer.connect(listening.getsockname())
    sock, _ = listening.accept()
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 0
    _, made = pass_on(hosts, sock)
    peer.sendall(b"x")
    assert made.recv(10) == b"x"
    assert made.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


def test_what_create_would_refuse_get_refuses(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a kernel to come reports more: the connection goes on here."""
    known = OPTIONS["TCP_USER_TIMEOUT"]
    narrower = Option(known.name, known.level, known.number, 0, 5, 0)
    monkeypatch.setattr(option_names, "OPTIONS", {**OPTIONS, known.name: narrower})
    preparation._met.clear()
    sock, peer = hosts.connect()
    sock.setsockopt(known.level, known.number, 6)
    with hosts.here.entered(), pytest.raises(Unsupported, match="TCP_USER_TIMEOUT is 6"):
        calls.get(sock)
    peer.sendall(b"x")
    assert sock.recv(10) == b"x"
