"""What this host permits and can take: asked before the first call for a connection (paper 7.1).

Source: capabilities(7); net/ipv4/tcp.c tcp_can_repair_sock(); net/ipv4/af_inet.c inet_create().
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import ipaddress
import os
import socket
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path

from tcpcp.errors import REMEDY, IciError, KernelError, OtherNamespace, PermissionDenied, no_net_admin
from tcpcp.kernel import routing, tcp_repair
from tcpcp.record import checks, option_names
from tcpcp.record.ici import Ici, State

#: With one of these a socket may have an address that this host has not (ip(7)).
_FOREIGN_ADDRESS = ("IP_FREEBIND", "IP_TRANSPARENT", "IPV6_FREEBIND", "IPV6_TRANSPARENT")
#: Those of the calling thread's network namespace, with their flags (include/uapi/linux/if_addr.h).
_IPV6_ADDRESSES = Path("/proc/thread-self/net/if_inet6")
_DAD_FAILED, _TENTATIVE = 0x08, 0x40
#: IP_BIND_ADDRESS_NO_PORT (ip(7)).
_BIND_NO_PORT = 24


def limits(icis: Sequence[Ici] | None = None, usual: Set[str] = frozenset()) -> checks.Limits:
    """The limits of this host, in the calling thread's network namespace, as they are now.

    Read anew each time: they differ from one namespace to another, and an administrator changes them. Each is a
    file, and takes 8 us.

    :param icis: what they are for: a limit that lies beyond all of these is not looked for once that is known,
        and may be a lower one that does; None: for anything.
    :param usual: the congestion control that sockets here start with, if that is known: who wants no other is not
        told which others there are.
    """
    receive = _ANY if icis is None else max(map(_receives_bytes, icis), default=0)
    send = _ANY if icis is None else max((ici.options.get("SO_SNDBUF", 0) for ici in icis), default=0)
    most_receive = _largest_buffer("ipv4/tcp_rmem", "core/rmem_max", receive)
    queue = checks.MAX_QUEUE_BYTES
    if receive > most_receive or any(map(_has_queues, icis or ())):
        queue = min(_tcp_memory_bytes(), queue)
    return checks.Limits(
        queue,
        queue,
        congestion_algorithms=_algorithms({ici.congestion.algorithm for ici in icis or ()}, usual),
        max_receive_buffer_bytes=most_receive,
        max_send_buffer_bytes=_largest_buffer("ipv4/tcp_wmem", "core/wmem_max", send),
    )


#: More than any limit.
_ANY = 2**63


def limits_for_criu() -> checks.Limits:
    """As :func:`limits`, of sockets with the buffers that they had, whatever applications may have here: CRIU's."""
    most = option_names.INT_MAX
    return dataclasses.replace(limits(), max_receive_buffer_bytes=most, max_send_buffer_bytes=most)


def _receives_bytes(ici: Ici) -> int:
    """What a receive buffer for *ici* may have to hold at most: its size, or what waits and may come."""
    return max(ici.options.get("SO_RCVBUF", 0), len(ici.receive_queue.data) + ici.window.rcv_wnd)


def _has_queues(ici: Ici) -> bool:
    return bool(ici.receive_queue.data or ici.send_queue.sent or ici.send_queue.unsent)


def _algorithms(wanted: Set[str], usual: Set[str]) -> frozenset[str]:
    """The congestion control algorithms of this host, or those among them that are *wanted*."""
    if wanted and wanted <= usual:
        return frozenset(wanted)
    return frozenset(_needed("ipv4/tcp_available_congestion_control").split())


def _largest_buffer(tuned: str, chosen: str, wanted_bytes: int) -> int:
    """What the kernel tunes a buffer to, or twice what an application may choose: setsockopt() doubles that.

    Older kernels show the second in the first network namespace only; elsewhere the first alone counts.

    :param wanted_bytes: where the first is as much, the second is not asked for.
    """
    most = int(_needed(tuned).split()[2])
    if most < wanted_bytes:
        with contextlib.suppress(FileNotFoundError):
            most = max(most, 2 * int(_sysctl(chosen)))
    return most


def _tcp_memory_bytes() -> int:
    """What all of TCP may use here; the file is only in the first network namespace."""
    try:
        most_pages = int(_sysctl("ipv4/tcp_mem").split()[2])
    except FileNotFoundError:
        return checks.MAX_QUEUE_BYTES
    return most_pages * os.sysconf("SC_PAGE_SIZE")


def _needed(name: str) -> str:
    """One that every network namespace has.

    :raises KernelError: it is not to be seen, as in a root directory of the program's own.
    """
    try:
        return _sysctl(name)
    except FileNotFoundError:
        call = f"read(/proc/sys/net/{name}), for which /proc has to be mounted"
        raise KernelError(call, errno.ENOENT) from None


def _sysctl(name: str) -> str:
    """/proc/sys/net is that of the thread which opens a file there, so nothing is kept open.

    :raises FileNotFoundError: this network namespace has no such setting.
    """
    path = f"/proc/sys/net/{name}"
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(file, 4096).decode()
        finally:
            os.close(file)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise KernelError(f"read({path})", exc.errno or errno.EIO) from exc


def require_repair() -> int:
    """Make sure that this thread may use repair mode in its network namespace.

    :return: the namespace, as :func:`tcpcp.kernel.tcp_repair.get_namespace`.
    :raises PermissionDenied: it has not got CAP_NET_ADMIN there.
    """
    with tcp_repair.opened(socket.AF_INET, socket.SOCK_STREAM) as fresh:
        try:
            tcp_repair.set_repair(fresh, tcp_repair.ON)
        except KernelError as exc:
            if exc.errno != errno.EPERM:
                raise
            raise no_net_admin() from exc
        return tcp_repair.get_namespace(fresh)


def namespace() -> int:
    """This thread's network namespace, as :func:`require_repair` gives it, for who needs no repair mode."""
    with tcp_repair.opened(socket.AF_INET, socket.SOCK_STREAM) as fresh:
        return tcp_repair.get_namespace(fresh)


def require_namespace(socks: Iterable[socket.socket], namespace: int) -> None:
    """Make sure that *socks* are of the network namespace that the filter will be made in.

    :raises OtherNamespace: one of them is of another.
    """
    for sock in socks:
        if tcp_repair.get_namespace(sock) != namespace:
            raise OtherNamespace(
                f"{tcp_repair.describe(sock)}: is of another network namespace than this thread; "
                "call from a thread inside (setns(2))"
            )


def require_raw() -> None:
    """Make sure that this thread may feed segments to its own stack.

    :raises PermissionDenied: it has not got CAP_NET_RAW.
    """
    if not has_raw():
        raise PermissionDenied(f"CAP_NET_RAW is missing, needed for a half-closed connection: {REMEDY}")


def has_raw() -> bool:
    """Whether this thread may feed segments to its own stack: CAP_NET_RAW.

    :raises KernelError: that cannot be found out.
    """
    try:
        tcp_repair.opened(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).close()
    except KernelError as exc:
        if exc.errno in (errno.EPERM, errno.EACCES):
            return False
        raise
    return True


def check(icis: Sequence[Ici], *, bound: Sequence[bool] = (), usual: Set[str] = frozenset()) -> checks.Limits:
    """Accept *icis*, or refuse them with everything that is wrong. No call is made for a connection.

    :param bound: for which of them there is a socket that is bound already. :param usual: as for :func:`limits`.
    :return: what this host can take.
    :raises IciError: none of them must be given to the kernel.
    """
    known = limits(icis, usual)
    found = [f"{ici}: {problem}" for ici in icis for problem in checks.problems(ici, known)]
    if not found:  # an address can be asked for only if it is one
        found = [*_twice(icis), *_absent(icis, bound or [False] * len(icis))]
    if found:
        raise IciError(found)
    return known


def _twice(icis: Iterable[Ici]) -> Iterator[str]:
    """No two connections have the same ends."""
    seen: set[tuple[bytes, int, bytes, int]] = set()  # by bytes: the hash of an address takes long
    for ici in icis:
        before = len(seen)
        seen.add((ici.local.packed, ici.local.port, ici.peer.packed, ici.peer.port))
        if len(seen) == before and ici.local.port and ici.state is not State.CLOSE:
            yield f"{ici}: is there twice"


def _absent(icis: Sequence[Ici], bound: Sequence[bool]) -> Iterator[str]:
    """Local addresses and devices exist here."""
    devices = {ici.device for ici in icis if ici.device}
    missing = devices - _devices() if devices else set()
    yield from (f"device {name} does not exist on this host" for name in sorted(missing))
    wanted = {
        (ici.local.packed, ici.device)
        for ici, given in zip(icis, bound, strict=True)
        if not given and not any(map(ici.options.get, _FOREIGN_ADDRESS))
    }
    for packed, device in sorted(wanted):
        ip = ipaddress.ip_address(packed)
        if device not in missing and not _has(ip, device):
            yield f"local address {ip} {_why_absent(packed)}, or choose another with Ici.at()"


def _why_absent(packed: bytes) -> str:
    """What the list of IPv6 addresses says of one that nobody can be bound to."""
    flags = 0
    with contextlib.suppress(OSError):
        for line in _IPV6_ADDRESSES.read_text().splitlines():
            ip, _, _, _, flagged, *_ = line.split()
            flags |= int(flagged, 16) if ip == packed.hex() else 0
    if flags & _DAD_FAILED:
        return "is another host's too (duplicate address detection has failed): remove it there"
    if flags & _TENTATIVE:
        return "is tentative, until this host knows that it is no other's: add it with `nodad`, wait"
    return "does not exist on this host; add it"


def _devices() -> set[str]:
    """Names of this network namespace's."""
    try:
        return {name for _, name in socket.if_nameindex()}
    except OSError as exc:
        raise KernelError("if_nameindex", exc.errno or errno.EMFILE) from exc


def _has(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, device: str) -> bool:
    """Whether a socket could be bound to *ip*, or a listener be reached there, by a local route for IPv6.

    The one that is bound needs no port: there may be none.
    """
    ipv6 = ip.version == 6
    with tcp_repair.opened(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM) as asking:
        tcp_repair.set_int(asking, socket.IPPROTO_IP, _BIND_NO_PORT, 1, "IP_BIND_ADDRESS_NO_PORT")
        try:
            scope = socket.if_nametoindex(device) if device else 0
            asking.bind((str(ip), 0, 0, scope) if ipv6 else (str(ip), 0))
        except OSError as exc:
            if exc.errno != errno.EADDRNOTAVAIL:
                raise tcp_repair.failed("bind", asking, exc) from exc
            return ipv6 and not ip.is_link_local and routing.stays_here(ip, "", 0)
    return True
