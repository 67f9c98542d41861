"""What takes CAP_NET_ADMIN in the first user namespace, and not only in that of the network namespace.

root of a container that has a user namespace of its own has repair mode and packet filters there, but no buffer
beyond what everybody may choose, and none of a few options. A passing needs none of that as a rule: then
everything works without; where it does, that is said before anything is tried.

Source: net/core/sock.c sk_setsockopt(): sockopt_capable() is capable(), which asks the first user namespace, and
sockopt_ns_capable() asks the network namespace's.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator, Sequence

from tcpcp.errors import KernelError, PermissionDenied
from tcpcp.kernel import tcp_repair
from tcpcp.record import option_names, seq
from tcpcp.record.ici import Ici
from tcpcp.record.option_names import OPTIONS

SOL_SOCKET = socket.SOL_SOCKET
#: Name of an option -> its number, and the number that takes the privilege.
_SIZES = {"SO_SNDBUF": (socket.SO_SNDBUF, 32), "SO_RCVBUF": (socket.SO_RCVBUF, 33)}
#: Options that take it where they are set, the second on some kernels only.
_OTHERS = ("SO_DEBUG", "SO_BUSY_POLL", "SO_PREFER_BUSY_POLL")
#: What a size may be at most: the kernel doubles it and keeps it in an int.
LARGEST_BUFFER = 2**30 - 1
#: What everybody may have everywhere where no administrator has taken it away, as the kernel reports it.
_USUAL_BYTES = 2 * 212992
#: Beside what is in a queue, of which the kernel counts whole buffers.
_BESIDE_BYTES = 65536
_REFUSED = (errno.EPERM, errno.EACCES)


def set_size(sock: socket.socket, name: str, size_bytes: int) -> bool:
    """Give a buffer of *sock* a size beyond the limits of this host; without the privilege up to these.

    :param name: SO_SNDBUF or SO_RCVBUF. :param size_bytes: half of what will be reported.
    :return: whether it is as large as that.
    :raises KernelError: nothing has changed.
    """
    plain, forced = _SIZES[name]
    try:
        tcp_repair.set_int(sock, SOL_SOCKET, forced, size_bytes, f"{name}FORCE")
    except KernelError as exc:
        if exc.errno != errno.EPERM:
            raise
        tcp_repair.set_int(sock, SOL_SOCKET, plain, size_bytes, name)
        return tcp_repair.get_int(sock, SOL_SOCKET, plain, name) >= 2 * size_bytes
    return True


def queue_bytes(length: int) -> int:
    """What a buffer has to be, as reported, for *length* bytes in its queue."""
    return 2 * length + _BESIDE_BYTES if length else 0


def require(icis: Sequence[Ici]) -> None:
    """Make sure that this thread may give sockets what *icis* need.

    :raises PermissionDenied: what takes the privilege, which it has not got.
    """
    wanted = [(ici, _needs(ici)) for ici in icis]
    sizes = [size for _, needs in wanted for size in needs.values()]
    if max(sizes, default=0) <= _USUAL_BYTES and not any(map(_has_others, icis)):
        return
    with tcp_repair.opened(socket.AF_INET, socket.SOCK_STREAM) as scratch:
        found = [] if _may(scratch) else list(_refused(scratch, wanted))
    if found:
        raise PermissionDenied(
            f"{'; '.join(found[:3])}: CAP_NET_ADMIN is missing in the first user namespace, which this takes"
        )


def _needs(ici: Ici) -> dict[str, int]:
    """How large each buffer has to be at least, as reported; what the kernel tunes may begin with less."""
    queue, window, locks = ici.send_queue, ici.window, ici.options.get("SO_BUF_LOCK", 0)
    promised = max(seq.diff(seq.add(window.rcv_wup, window.rcv_wnd), ici.rcv_nxt), 0)
    unread = len(ici.receive_queue.data)
    needs = {
        "SO_SNDBUF": queue_bytes(len(queue.sent) + len(queue.unsent)),
        "SO_RCVBUF": max(queue_bytes(unread), unread + promised),
    }
    for name, bit in (("SO_SNDBUF", option_names.SNDBUF_LOCK), ("SO_RCVBUF", option_names.RCVBUF_LOCK)):
        if locks & bit:
            needs[name] = max(needs[name], ici.options.get(name, 0))
    return needs


def _has_others(ici: Ici) -> bool:
    return any(ici.options.get(name) for name in _OTHERS)


def _may(scratch: socket.socket) -> bool:
    try:
        tcp_repair.set_int(scratch, SOL_SOCKET, _SIZES["SO_SNDBUF"][1], _USUAL_BYTES, "SO_SNDBUFFORCE")
    except KernelError as exc:
        if exc.errno in _REFUSED:
            return False
        raise
    return True


def _refused(scratch: socket.socket, wanted: Iterable[tuple[Ici, dict[str, int]]]) -> Iterator[str]:
    most = {name: largest(scratch, name) for name in _SIZES}
    for ici, needs in wanted:
        for name, size in needs.items():
            if size > most[name]:
                yield f"{ici}: {name} of {size} bytes, where everybody may have {most[name]}"
        for name in _OTHERS:
            value = ici.options.get(name)
            if value and not _settable(scratch, name, value):
                yield f"{ici}: {name} {value}"


def largest(sock: socket.socket, name: str) -> int:
    """Give a buffer of *sock* the largest size that everybody may choose; that, as reported."""
    plain, _ = _SIZES[name]
    tcp_repair.set_int(sock, SOL_SOCKET, plain, LARGEST_BUFFER, name)
    return tcp_repair.get_int(sock, SOL_SOCKET, plain, name)


def _settable(scratch: socket.socket, name: str, value: int) -> bool:
    try:
        scratch.setsockopt(OPTIONS[name].level, OPTIONS[name].number, value)
    except OSError as exc:
        return exc.errno not in _REFUSED  # anything else is told where it is set
    return True
