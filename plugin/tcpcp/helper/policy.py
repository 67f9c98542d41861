"""Who may ask, and what a user without privileges may claim in an ICI. Pure.

What an ICI asks for is done by a helper with CAP_NET_ADMIN, so that the kernel's own checks of its user do
not happen. They are made here: nothing is granted that the user could not have done alone, but for the
connection itself.

Source: ip(7), socket(7), tcp(7); net/core/sock.c sk_setsockopt(), net/ipv4/af_inet.c __inet_bind(),
net/ipv4/tcp_cong.c tcp_set_congestion_control().
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tcpcp.record.ici import Ici
from tcpcp.record.option_names import OPTIONS

#: Up to here SO_PRIORITY needs no privilege.
MAX_PRIORITY = 6
#: The word that grants everything but ports.
_OPTIONS = "options"


@dataclass(frozen=True, slots=True)
class Rights:
    """What a user may claim beyond what everybody may.

    :ivar ports: local ports, also below the first unprivileged one, and whoever has sockets there.
    :ivar options: socket options, devices, congestion control and buffer sizes that need a privilege.
    """

    ports: tuple[range, ...] = ()
    options: bool = False

    def may_claim(self, port: int) -> bool:
        """Whether the local *port* is granted by name."""
        return any(port in ports for ports in self.ports)

    def __or__(self, other: Rights) -> Rights:
        return Rights(self.ports + other.ports, self.options or other.options)

    def __str__(self) -> str:
        """What :func:`parse_rights` reads."""
        ports = [f"{ports.start}-{ports.stop - 1}" for ports in self.ports]
        return ",".join(ports + [_OPTIONS] * self.options)


@dataclass(frozen=True, slots=True)
class Allowed:
    """Who may ask: rights by number of user and of group."""

    users: dict[int, Rights] = field(default_factory=dict)
    groups: dict[int, Rights] = field(default_factory=dict)

    def rights(self, uid: int, gids: Iterable[int]) -> Rights | None:
        """All that *uid*, who is in the groups *gids*, was granted; None: he may not ask at all."""
        granted = [self.users[uid]] if uid in self.users else []
        granted += [self.groups[gid] for gid in sorted(set(gids)) if gid in self.groups]
        if not granted:
            return None
        together = Rights()
        for one in granted:
            together |= one
        return together


@dataclass(frozen=True, slots=True)
class Limits:
    """What this host lets everybody do.

    :ivar first_port: net.ipv4.ip_unprivileged_port_start.
    :ivar send_bytes: largest SO_SNDBUF as reported, :ivar receive_bytes: SO_RCVBUF, that one gets without a
        privilege, by setting it or by the kernel's tuning.
    :ivar congestion: net.ipv4.tcp_allowed_congestion_control.
    """

    first_port: int
    send_bytes: int
    receive_bytes: int
    congestion: frozenset[str]


def parse_grant(text: str) -> tuple[str, Rights]:
    """A name and its rights from ``www-data:80,8000-8010,options``, ``www-data``.

    :raises ValueError: what is wrong with it.
    """
    name, _, rights = text.partition(":")
    if not name:
        raise ValueError(f"no name in {text!r}")
    return name, parse_rights(rights)


def parse_rights(text: str) -> Rights:
    """Rights from ``80,8000-8010,options``; nothing from nothing.

    :raises ValueError: what is wrong with it.
    """
    words = [word for word in text.split(",") if word]
    return Rights(tuple(_ports(word) for word in words if word != _OPTIONS), _OPTIONS in words)


def _ports(word: str) -> range:
    numbers = word.split("-")
    if len(numbers) > 2 or not all(one.isascii() and one.isdigit() for one in numbers):
        raise ValueError(f"{word!r} is neither a port, nor first-last, nor {_OPTIONS!r}")
    ports = range(int(numbers[0]), int(numbers[-1]) + 1)
    if not ports or ports.start < 1 or ports.stop > 65536:
        raise ValueError(f"{word!r} are not ports, 1 to 65535")
    return ports


def problems(ici: Ici, rights: Rights, limits: Limits) -> Iterator[str]:
    """What of *ici* its user may not have: one sentence each."""
    port = ici.local.port
    if 0 < port < limits.first_port and not rights.may_claim(port):
        yield f"local port {port} is below {limits.first_port}"
    if rights.options:
        return
    yield from _buffers(ici, limits)
    yield from _options(ici)
    if ici.device and not ici.local.ip.is_link_local:
        yield f"SO_BINDTODEVICE {ici.device}"
    if ici.congestion.algorithm not in limits.congestion:
        yield f"congestion control {ici.congestion.algorithm} is not in net.ipv4.tcp_allowed_congestion_control"


def _buffers(ici: Ici, limits: Limits) -> Iterator[str]:
    """A window and a queue take a buffer as large at least, whatever the option says."""
    receive = max(ici.options.get("SO_RCVBUF", 0), ici.window.rcv_wnd, len(ici.receive_queue.data))
    send = max(ici.options.get("SO_SNDBUF", 0), len(ici.send_queue.sent) + len(ici.send_queue.unsent))
    if receive > limits.receive_bytes:
        yield f"a receive buffer of {receive} bytes; without a privilege {limits.receive_bytes}"
    if send > limits.send_bytes:
        yield f"a send buffer of {send} bytes; without a privilege {limits.send_bytes}"


def _options(ici: Ici) -> Iterator[str]:
    for name, value in ici.options.items():
        option = OPTIONS.get(name)
        if option is None or not option.privileged or name in ("SO_SNDBUF", "SO_RCVBUF"):
            continue  # what is not an option at all is refused elsewhere
        if name == "SO_PRIORITY" and value <= MAX_PRIORITY:
            continue
        if value != option.default:
            yield f"{name} {value}"
