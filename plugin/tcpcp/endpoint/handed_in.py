"""What a program hands over: one of Python's sockets, or what stands for one; and whether it is a fresh one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from tcpcp.endpoint import inspection, socket_ends
from tcpcp.errors import KernelError, Unsupported, WrongArgument
from tcpcp.kernel import tcp_repair
from tcpcp.record import checks
from tcpcp.record.ici import Ici, State

T = TypeVar("T")
#: Of descriptors, C's int.
_LARGEST = 2**31 - 1
#: What Python's own sockets are, or gevent's once it has patched them. eventlet's are none: they have one inside.
_OWN_KIND = socket.SocketType
#: The family that one of these was told it has; not sock.family, which makes an enum of it.
_declared: Callable[[socket.socket], int] = _OWN_KIND.family.__get__


#: Classes whose keys are in this process, by module and name, and how TLS is ended there.
_ENCRYPTING = {
    ("ssl", "SSLSocket"): "unwrap() and pass socket.socket(fileno=sock.detach())",
    ("gevent.ssl", "SSLSocket"): "unwrap() and pass socket.socket(fileno=sock.detach())",
    ("OpenSSL.SSL", "Connection"): "shutdown() on both sides and pass the socket that it was made of",
}


class HasFileno(Protocol):
    """A socket, or what stands for one: asyncio's TransportSocket, for example."""

    def fileno(self) -> int:
        """The descriptor."""
        ...


def as_socket(given: HasFileno, stack: contextlib.ExitStack) -> socket.socket:
    """*given* as one of Python's sockets, which knows its own family.

    One of Python's believes what it was told (socket.fromfd() and socket.socket(fileno=) with a family, accept() of
    one that was told wrong), and reads addresses and options by that. Where the kernel says another family it gets
    a duplicate: what is read of a socket must not depend on the object by which it was given.

    :param stack: closes it at its end, where it is a duplicate.
    :raises Unsupported: it is closed, or no socket, or one that encrypts, or has a buffer of its own.
    :raises KernelError: there is no descriptor left for a duplicate.
    """
    _require_plain(given)
    number = _descriptor(given)
    if isinstance(given, socket.socket) and isinstance(given, _OWN_KIND) and _is_of_declared_family(given):
        return given
    try:
        made = stack.enter_context(_duplicate(number))
    except OSError as exc:
        if exc.errno in (errno.EMFILE, errno.ENFILE):
            raise KernelError("dup", exc.errno, f"descriptor {number}") from exc
        raise Unsupported(f"descriptor {number}: not a socket: {exc.strerror}") from exc
    if isinstance(given, (io.BufferedIOBase, io.TextIOBase)):  # as makefile() returns
        raise Unsupported(
            f"{tcp_repair.describe(made)}: {type(given).__name__}: a file may have bytes in a buffer of its own, "
            "which an ICI has not; take what it has read ahead (peek()), or flush() what it has not written, close "
            "it, and pass the socket that it was made of"
        )
    return made


def _require_plain(given: object) -> None:
    """Refuse what encrypts: the socket below would be passed, and its new owner could read and write nothing.

    Asked of modules that are loaded: who has not loaded one has no such socket.
    """
    for (module, name), how in _ENCRYPTING.items():
        kind = getattr(sys.modules.get(module), name, None)
        if isinstance(kind, type) and isinstance(given, kind):
            raise Unsupported(
                f"{_name_of(given)}: TLS: its keys are in this process, and an ICI has none of them; end it with "
                f"{how}, or let a proxy encrypt (docs/tls.md)"
            )


def _is_of_declared_family(sock: socket.socket) -> bool:
    """Also where *sock* is no socket any more, its number closed: whoever asks it something next says so."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, inspection.SO_DOMAIN) == _declared(sock)
    except OSError:
        return True


def require_no_files(given: HasFileno) -> None:
    """Refuse one of Python's sockets with open files made of it: nobody can see what they have in their buffers.

    :raises Unsupported: makefile() was called more often than such a file was closed.
    """
    files = getattr(given, "_io_refs", 0) if isinstance(given, socket.socket) else 0  # the only trace of them
    if files:
        raise Unsupported(
            f"{_name_of(given)}: {files} open file(s) made of it (makefile()), which may have bytes in a buffer of "
            "their own that an ICI has not; take what they have read ahead (peek()), flush() and close them first"
        )


def _descriptor(given: HasFileno) -> int:
    try:
        number = given.fileno()
    except AttributeError as exc:
        raise Unsupported(f"{_shown(given)}: not a socket: it has no fileno()") from exc
    except (
        Exception
    ) as exc:  # a file that is closed, or has none of its own (io.IOBase.fileno()); a program's own
        raise Unsupported(f"{_shown(given)}: not a socket: it has no descriptor: {exc}") from exc
    if not isinstance(number, int) or number > _LARGEST:
        raise Unsupported(f"{_shown(given)}: not a socket: its fileno() is {number!r}")
    if number < 0:
        raise Unsupported("the socket is closed")
    return number


def listed(given: Iterable[T], what: str = "sockets") -> list[T]:
    """*given* as a list.

    :raises WrongArgument: it is nothing that can be gone through.
    """
    try:
        return list(given)
    except TypeError:
        raise WrongArgument(f"not {what} but {type(given).__name__}: a list is wanted") from None


def entries(given: Iterable[HasFileno | tuple[int, HasFileno]]) -> list[tuple[int, HasFileno]]:
    """*given*, sockets or pairs of tag and socket, as pairs; the tag of the former is 0.

    :raises WrongArgument: it is nothing of that kind. :raises IciError: a tag is none.
    :raises Unsupported: as :func:`require_no_files`.
    """
    pairs: list[tuple[int, HasFileno]] = []
    for entry in listed(given):
        if isinstance(entry, tuple) and len(entry) != 2:
            raise WrongArgument(f"a tuple of {len(entry)}: a socket is wanted, or a pair of tag and socket")
        pairs.append(entry if isinstance(entry, tuple) else (0, entry))
    checks.require_tags(tag for tag, _ in pairs)
    for _, sock in pairs:
        require_no_files(sock)
    return pairs


def require_fresh(sock: socket.socket, ici: Ici) -> socket.socket:
    """Make sure that *sock* can become the endpoint *ici*.

    :return: *sock*.
    :raises Unsupported: it is closed, no TCP socket, of another family than the ICI's or than its object was told,
        in repair mode, connected or listening, or bound to a port of every address: which one it gets is known
        when it connects, too late to isolate it.
    """
    if not isinstance(sock, socket.socket):
        raise Unsupported(f"{ici}: {_shown(sock)} is none of Python's sockets")
    with contextlib.ExitStack() as stack:
        own = as_socket(sock, stack)
        if own is not sock and (own.family != sock.family or not isinstance(sock, socket.socket)):
            raise Unsupported(
                f"{ici}: the socket given is of the family {own.family.name}, not {sock.family.name}"
            )
    inspection.require_tcp(sock)
    if (sock.family == socket.AF_INET6) != ici.ipv6_socket:
        raise Unsupported(f"{ici}: cannot be created with a socket of the family {sock.family.name}")
    state = tcp_repair.get_state(sock)
    if state != State.CLOSE or tcp_repair.get_repair(sock):
        name = State(state).name
        raise Unsupported(
            f"{ici}: cannot be created with a socket in state {name}, {tcp_repair.describe(sock)}; take a fresh one"
        )
    bound = socket_ends.local_end(sock)
    if bound.port and bound.ip.is_unspecified:
        raise Unsupported(
            f"{ici}: cannot be created with a socket bound to every address, {tcp_repair.describe(sock)}; "
            "bind it to the one that the connection is to have"
        )
    return sock


def _name_of(given: object) -> str:
    return tcp_repair.describe(given) if isinstance(given, socket.socket) else _shown(given)


def _shown(given: object) -> str:
    """As Python writes it, unless its own class cannot."""
    try:
        return repr(given)
    except Exception:
        return f"an object of {type(given).__name__}"


def _duplicate(descriptor: int) -> socket.socket:
    """Another object for the same socket; what a default timeout, or eventlet, does to the descriptor is undone."""
    before = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    copy = os.dup(descriptor)
    try:
        made = socket.socket(fileno=copy)
    except BaseException:
        os.close(copy)
        raise
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) != before:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, before)
    return made
