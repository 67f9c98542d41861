"""No option is taken from another socket that has it otherwise; what is read without asking is what is asked."""

from __future__ import annotations

import random
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from netns import Hosts, eventually
from test_options import TIMESTAMPS, VALUES, has, meant_for, put, raw_of

from tcpcp.endpoint import calls, fingerprint, preparation, reader, socket_ends, socket_options
from tcpcp.kernel import fields, socket_layout, tcp_repair
from tcpcp.record.option_names import IPPROTO_IPV6, OPTIONS, Option

KINDS = ("v4", "v6", "mapped")


@pytest.fixture(autouse=True)
def permitted() -> None:
    fingerprint.prepare()
    if not fields._made or not fields._made[0].whole:
        pytest.skip(f"the kernel refuses the program: {fields._refused}")


def settings(sock: socket.socket) -> bytes:
    (seen,) = fields.look([sock])
    assert seen
    return seen.settings


def told(kind: str) -> list[Option]:
    """Options that connections of that kind with the same settings have in common."""
    found = [*meant_for(kind), *(OPTIONS[name] for name in TIMESTAMPS)]
    return [one for one in found if one.name not in fingerprint.OTHERWISE]


def values_of(option: Option) -> list[int]:
    """To be set one after the other."""
    value = VALUES.get(option.name, 1)
    if option.maximum - option.minimum < 2:
        return [option.minimum, option.maximum]
    # SO_PRIORITY is set along with IP_TOS: it is the same for 0x10 and 0x30.
    if option.name in ("IP_TOS", "IPV6_TCLASS"):
        return [0x10, 0x30]
    return [value, value * 3 // 2 if option.is_settable(value * 3 // 2) else value // 2]


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_changes_the_settings(hosts: Hosts, kind: str) -> None:
    """On connections; and to one value more, for a flag beside the value must not do."""
    tried = 0
    for option in told(kind):
        sock, _peer = hosts.connect(kind)
        if not has(sock, option):
            continue
        found = [(settings(sock), raw_of(sock, option))]
        for value in values_of(option):
            put(sock, option, value)
            found.append((settings(sock), raw_of(sock, option)))
        # The same settings never go with two values.
        assert len({one for one, _ in found}) == len({*found}), option.name
        assert len({raw for _, raw in found}) == (2 if option.maximum - option.minimum < 2 else 3), (
            option.name
        )
        tried += 1
    assert tried > 35
    assert fingerprint.tells_options_apart(sock.family)


@pytest.mark.parametrize("missing", ("skc_flags", "inet_sock.tos", "sk_lingertime", "keepalive_probes"))
def test_a_kernel_that_keeps_an_option_somewhere_else(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found out; also where another field changes along with it."""
    left = [path for path in socket_layout._SETTINGS if missing not in path]
    assert left != socket_layout._SETTINGS
    monkeypatch.setattr(socket_layout, "_SETTINGS", left)
    monkeypatch.setattr(fields, "_made", [fields.Reader()])
    monkeypatch.setattr(fingerprint, "_found", {})
    assert not fingerprint.tells_options_apart(socket.AF_INET)
    fields._made[0].close()


def disturb(sock: socket.socket, options: list[Option], chance: random.Random) -> None:
    for option in chance.sample(options, chance.randint(0, 4)):
        if option.name == "SO_LOCK_FILTER":
            continue
        if has(sock, option):
            put(sock, option, chance.choice(values_of(option)))


@pytest.mark.parametrize("seed", range(3))
def test_options_set_at_random(hosts: Hosts, seed: int) -> None:
    """Of many sockets of all kinds at once each has its own, as if it was read alone."""
    chance = random.Random(seed)
    pairs, socks = [], []
    for _ in range(60):
        kind = chance.choice(KINDS)
        pairs.append(hosts.connect(kind))
        socks.append(pairs[-1][0])
        disturb(socks[-1], meant_for(kind), chance)
    with hosts.here.entered():
        prepared = preparation.prepare_many(socks)
        for sock, one in zip(socks, prepared, strict=True):
            alone = socket_options.read_all(sock, ipv6_only=one.local.ip.version == 6, connected=True)
            assert socket_options.read_tuned(sock, one.options) == alone
            assert (one.local, one.peer, False) == socket_ends.ends(sock)
            assert one.algorithm == tcp_repair.get_congestion(sock)
            assert one.ipv6_socket == (sock.family == socket.AF_INET6)


def lively(hosts: Hosts, chance: random.Random) -> tuple[socket.socket, socket.socket]:
    """A connection with some history: data both ways, read or not, now and then a direction shut."""
    sock, peer = hosts.connect(chance.choice(KINDS))
    for _ in range(chance.randint(0, 4)):
        one, other = chance.sample([sock, peer], 2)
        size = chance.choice([1, 1000, 20_000])
        one.sendall(b"x" * size)
        if chance.random() < 0.8:
            other.recv(size, socket.MSG_WAITALL)
    if chance.random() < 0.3:
        chance.choice([sock, peer]).shutdown(chance.choice([socket.SHUT_RD, socket.SHUT_WR]))
    if chance.random() < 0.3:
        sock.setsockopt(
            IPPROTO_IPV6 if sock.family == socket.AF_INET6 else 0,
            67 if sock.family == socket.AF_INET6 else 1,
            16,
        )
    return sock, peer


@pytest.mark.parametrize("seed", range(4))
def test_what_is_read_without_asking(hosts: Hosts, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's own calls say the same of each of many connections, quiet or not."""
    chance = random.Random(seed)
    pairs = [lively(hosts, chance) for _ in range(40)]
    socks = [sock for sock, _ in pairs]
    eventually(lambda: not any(map(tcp_repair.get_outq, [peer for _, peer in pairs])), "acknowledged")
    asked: list[socket.socket] = []
    read = reader._read
    monkeypatch.setattr(reader, "_read", lambda sock, *rest: (asked.append(sock), read(sock, *rest))[1])
    with hosts.here.entered():
        icis = calls.get_many(socks)
        assert len(asked) < len(socks)
        for sock, ici in zip(socks, icis, strict=True):
            assert replace(reader.read_again(sock, ici), timestamp=None) == replace(ici, timestamp=None)
            assert (ici.timestamp is None) == (not ici.negotiated.timestamps)
        calls.resume_many(socks)


def test_where_numbers_are_wrong_the_kernel_is_asked(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another kernel may mean something else by a field."""
    pairs = [hosts.connect() for _ in range(5)]
    real = fields.numbers
    wrong = lambda socks: [one and one._replace(snd_wnd=one.snd_wnd + 1) for one in real(socks)]  # noqa: E731
    monkeypatch.setattr(fields, "numbers", wrong)
    monkeypatch.setattr(reader, "_reading", reader._Reading())  # as in a process that has read none yet
    with hosts.here.entered():
        icis = calls.get_many([sock for sock, _ in pairs])
        for ici, (sock, _) in zip(icis, pairs, strict=True):
            assert ici.window == tcp_repair.get_window(sock)
        calls.resume_many([sock for sock, _ in pairs])


#: Option, its sysctl, and a value for that which no host has.
DECIDED = (
    ("TCP_KEEPIDLE", "tcp_keepalive_time", 1234),
    ("TCP_KEEPINTVL", "tcp_keepalive_intvl", 56),
    ("TCP_KEEPCNT", "tcp_keepalive_probes", 7),
    ("TCP_LINGER2", "tcp_fin_timeout", 43),
    ("IP_TTL", "ip_default_ttl", 77),
)


@pytest.mark.parametrize("name, sysctl, value", DECIDED)
def test_a_sysctl_that_is_changed_between_two_calls(hosts: Hosts, name: str, sysctl: str, value: int) -> None:
    """The second connection is of a kind that has been met, and still it has what it has now."""
    one, _one_peer = hosts.connect()
    other, _other_peer = hosts.connect()
    with hosts.here.entered():
        before = calls.get(one)
        calls.resume(one)
        Path(f"/proc/sys/net/ipv4/{sysctl}").write_text(str(value))
        alone = socket_options.read_all(other, connected=True)
        after = calls.get(other)
        calls.resume(other)
    assert before.options[name] != value
    assert after.options[name] == alone[name] == value


def test_a_kind_that_was_met_is_not_asked_again(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is said of it is what it says itself."""
    socks = [hosts.connect(kind) for kind in KINDS for _ in range(2)]
    asked: list[socket.socket] = []
    real = preparation._prepare_asking
    monkeypatch.setattr(preparation, "_met", {})
    monkeypatch.setattr(preparation, "_prepare_asking", lambda some: (asked.extend(some), real(some))[1])
    with hosts.here.entered():
        for sock, _ in socks:
            ici = calls.get(sock)
            calls.resume(sock)
            alone = socket_options.read_all(sock, ipv6_only=ici.local.ip.version == 6, connected=True)
            assert ici.options == alone
    assert asked == [sock for sock, _ in socks[::2]]
