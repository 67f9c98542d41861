"""What of a socket only its owner changes, read while it may be in use: stage one of `reader`."""

from __future__ import annotations

import select
import socket
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tcpcp.endpoint import fingerprint, inspection, socket_ends, socket_options
from tcpcp.errors import Unsupported
from tcpcp.kernel import fields, socket_filter, tcp_repair
from tcpcp.kernel.fields import Seen
from tcpcp.record import option_names
from tcpcp.record.ici import FIN_IN, Endpoint


class Prepared(NamedTuple):
    """What :func:`prepare` reads of a socket: only its owner changes that.

    :ivar closed: the state is CLOSE: there is no connection any more, only bytes to be read.
    :ivar shut: shutdown(SHUT_RD) was called.
    """

    local: Endpoint
    peer: Endpoint
    closed: bool
    options: dict[str, int]
    algorithm: str
    device: str
    socket_filter: bytes
    ipv6_socket: bool
    shut: bool = False


def prepare(sock: socket.socket) -> Prepared:
    """Check that *sock* can be passed, and read what packets do not change. It may be in use.

    :param sock: as for :func:`tcpcp.endpoint.inspection.inspect`.
    :return: for :func:`tcpcp.endpoint.reader.read`; nobody may set an option of the socket in between.
    :raises Unsupported, KernelError: as :func:`tcpcp.endpoint.inspection.inspect`.
    """
    return prepare_many([sock])[0]


def prepare_many(socks: Sequence[socket.socket], seen: Sequence[Seen | None] | None = None) -> list[Prepared]:
    """:func:`prepare` for several sockets, all of the same network namespace.

    :param seen: what :func:`tcpcp.kernel.fields.look` says of each, if it was asked just before.
    :raises Unsupported, KernelError: of the first that cannot be passed; nothing has changed.
    """
    looks = fields.look(socks) if seen is None else seen
    if not any(looks):
        return _prepare_asking(socks)
    alike: dict[_Kind, Prepared] = {}
    return [_prepare_as_seen(sock, look, alike) for sock, look in zip(socks, looks, strict=True)]


#: IP version, and :attr:`tcpcp.kernel.fields.Seen.settings`.
_Kind = tuple[int, bytes]
#: Kinds that this process has met, with the first that was asked of each; so many at most.
_met: dict[_Kind, Prepared] = {}
_MOST_MET = 256


def _prepare_as_seen(sock: socket.socket, seen: Seen | None, alike: dict[_Kind, Prepared]) -> Prepared:
    """*sock* is not asked where one of its kind has been: what is true of that one is true of it."""
    both = socket_ends.ends_in(seen.ends) if seen else None
    if seen is None or both is None:
        return _prepare_asking([sock])[0]
    local, peer = both
    kind = local.ip.version, seen.settings
    known = alike.get(kind)
    if known is None:
        known = _met.get(kind)
        if known is None:
            return _meet(sock, seen, kind, alike, both)
        known = alike[kind] = _as_it_is_now(sock, known)
    options = socket_options.read_counted(sock, known.options, ipv6_socket=known.ipv6_socket)
    return Prepared(local, peer, False, options, known.algorithm, known.device, b"", known.ipv6_socket)


def _meet(
    sock: socket.socket,
    seen: Seen,
    kind: _Kind,
    alike: dict[_Kind, Prepared],
    both: tuple[Endpoint, Endpoint],
) -> Prepared:
    """The first of its kind.

    Its ends are *both*, those of its packets: what getpeername() says a control group's BPF program may have made
    up, as those do that balance loads without translating packets (net/ipv4/af_inet.c inet_getname()).
    """
    (found,) = _prepare_asking([sock])
    if not found.closed:
        found = found._replace(local=both[0], peer=both[1])
    if _has_a_kind(seen, found) and fingerprint.tells_options_apart(sock.family):
        if len(_met) >= _MOST_MET:
            _met.clear()
        alike[kind] = _met[kind] = found
    return found


def _as_it_is_now(sock: socket.socket, known: Prepared) -> Prepared:
    """What was asked of another one some time ago: what is not in the socket itself may be otherwise by now.

    That is what a sysctl decides, and what an interface or a congestion control is called.
    """
    options = socket_options.read_decided(sock, known.options)
    _require_passable(sock, options, known.ipv6_socket)
    return known._replace(
        options=options,
        algorithm=tcp_repair.get_congestion(sock),
        device=socket_ends.device(sock),
    )


def _has_a_kind(seen: Seen, found: Prepared) -> bool:
    """Nothing of it is its own."""
    return not (fields.is_special(seen) or found.closed or found.shut or found.socket_filter)


def _prepare_asking(socks: Sequence[socket.socket]) -> list[Prepared]:
    events = inspection.inspect_many(socks)
    return [_prepare(sock, _is_shut(sock, events)) for sock in socks]


def _is_shut(sock: socket.socket, events: Mapping[int, int]) -> bool:
    """Whether the application shut its reading; once the peer has sent a FIN, that is the same."""
    hung_up = events.get(sock.fileno(), 0) & select.POLLRDHUP
    return bool(hung_up) and tcp_repair.get_state(sock) not in FIN_IN


def _prepare(sock: socket.socket, shut: bool) -> Prepared:
    local, peer, closed = socket_ends.ends(sock)
    ipv6_only = local.ip.version == 6
    ipv6_socket = ipv6_only or sock.family == socket.AF_INET6
    options = socket_options.read_all(sock, ipv6_only=ipv6_only, connected=True)
    _require_passable(sock, options, ipv6_socket)
    algorithm = tcp_repair.get_congestion(sock)
    return Prepared(
        local,
        peer,
        closed,
        options,
        algorithm,
        socket_ends.device(sock),
        socket_filter.get(sock),
        ipv6_socket,
        shut,
    )


def _require_passable(sock: socket.socket, options: Mapping[str, int], ipv6_socket: bool) -> None:
    """Refuse here what `create` would, when it is too late to go on here."""
    if found := option_names.problems(options, ipv6_socket=ipv6_socket):
        name = tcp_repair.describe(sock)
        raise Unsupported(f"{name}: no kernel known reports such options: {'; '.join(found)}")
