"""TCP_REPAIR and its relatives: constants, structs, one function for a call. No policy.

Every function raises :class:`tcpcp.errors.KernelError` naming its call when that fails, and needs the state
of the socket that the kernel asks for; what that is, and the order that works, is told in
:mod:`tcpcp.endpoint`.

Source: include/uapi/linux/tcp.h; net/ipv4/tcp.c do_tcp_setsockopt(), do_tcp_getsockopt(), tcp_ioctl().
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from tcpcp.errors import KernelError
from tcpcp.record.ici import Window
from tcpcp.record.seq import MASK

TCP = socket.IPPROTO_TCP
SO_PEERNAME, SO_COOKIE, SO_NETNS_COOKIE = 28, 57, 71

TCP_MAXSEG = 2
TCP_CORK = 3
TCP_INFO = 11
TCP_CONGESTION = 13
TCP_REPAIR = 19
TCP_REPAIR_QUEUE = 20
TCP_QUEUE_SEQ = 21
TCP_REPAIR_OPTIONS = 22
TCP_TIMESTAMP = 24
TCP_REPAIR_WINDOW = 29
TCP_ULP = 31
TCP_AO_INFO = 40

#: Values of TCP_REPAIR. OFF sends a window probe, OFF_NO_PROBE (since Linux 4.19) does not.
ON, OFF, OFF_NO_PROBE = 1, 0, -1
#: Values of TCP_REPAIR_QUEUE.
NO_QUEUE, RECV_QUEUE, SEND_QUEUE = 0, 1, 2

#: Codes of TCP_REPAIR_OPTIONS: the option kinds of RFC 9293, RFC 7323, RFC 2018.
OPT_MSS, OPT_WINDOW, OPT_SACK, OPT_TIMESTAMP = 2, 3, 4, 8

#: Bits of tcpi_options.
HAS_TIMESTAMPS, HAS_SACK, HAS_WSCALE, HAS_ECN = 1, 2, 4, 8

IPV6_2292PKTOPTIONS = 6
#: Too short to hold a control message.
_NO_MESSAGES = b"\0" * 4

SIOCINQ = 0x541B
SIOCOUTQ = 0x5411
SIOCATMARK = 0x8905
SIOCOUTQNSD = 0x894B
SIOCGSKNS = 0x894C

IPPROTO_MPTCP = 262

_U32 = struct.Struct("=I")
_WINDOW = struct.Struct("=5I")
_OPTIONS = {n: struct.Struct(f"={2 * n}I") for n in range(5)}
#: struct tcp_info up to tcpi_total_retrans, which every kernel that has TCP_REPAIR_WINDOW returns.
_INFO = struct.Struct("=8B24I")
#: tcpi_segs_in, since Linux 4.2.
_SEGMENTS_IN = struct.Struct("=140xI")
#: tcpi_pacing_rate and tcpi_min_rtt, since Linux 4.6.
_PACING = struct.Struct("=104xQ36xI")
_INT = b"\0\0\0\0"
#: What is given as an int with a sign, and means one without: no error shows it.
_UNSIGNED = frozenset({"TCP_QUEUE_SEQ", "TCP_TIMESTAMP"})
#: By queue: what selects it, for :func:`set_each`.
QUEUES = {n: (TCP, TCP_REPAIR_QUEUE, n, "TCP_REPAIR_QUEUE") for n in (NO_QUEUE, RECV_QUEUE, SEND_QUEUE)}
#: By whether it is IPv6: the settings of :func:`resize_segments`.
RESIZING = {
    False: [(socket.IPPROTO_IP, socket.IP_OPTIONS, b"", "IP_OPTIONS")],
    True: [
        (socket.IPPROTO_IPV6, IPV6_2292PKTOPTIONS, value, "IPV6_2292PKTOPTIONS")
        for value in (_NO_MESSAGES, b"")
    ],
}
#: struct sockaddr with AF_UNSPEC.
_UNSPECIFIED = bytes(16)
_namespace_cookies = True

_libc = ctypes.CDLL(None, use_errno=True)
_libc.connect.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]


class Info(NamedTuple):
    """The part of struct tcp_info that is read here, with the kernel's names; times in us."""

    state: int
    options: int
    snd_wscale: int
    rcv_wscale: int
    snd_mss: int
    rtt: int
    rttvar: int
    snd_ssthresh: int
    snd_cwnd: int
    advmss: int


def opened(family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A fresh socket.

    :raises KernelError: EMFILE, this process has no descriptor left, for example.
    """
    try:
        return socket.socket(family, kind, protocol)
    except OSError as exc:
        raise KernelError("socket", exc.errno or errno.EMFILE) from exc


def describe(sock: socket.socket) -> str:
    """``local - peer`` for messages, as an ICI is written; where *sock* does not know both, its descriptor too."""
    if sock.fileno() < 0:
        return "a closed socket"
    local = peer = ""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        local = _name_of(sock.getsockname)
        peer = _name_of(sock.getpeername) or _name_of(lambda: _last_peer(sock))
    if local and peer:
        return f"{local} - {peer}"
    known = f"{local or '?'} - {peer or '?'}" if local or peer else "a socket without addresses"
    return f"{known} (descriptor {sock.fileno()})"


def _name_of(call: Callable[[], tuple[Any, ...]]) -> str:
    """The end that *call* returns, or "" where there is none."""
    try:
        host, port = call()[:2]
    except OSError:
        return ""
    host = host.removeprefix("::ffff:")
    return "" if port == 0 else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _last_peer(sock: socket.socket) -> tuple[str, int]:
    """The far end of a connection that has ended, which getpeername() does not tell (net/core/sock.c)."""
    size, where = (28, slice(8, 24)) if sock.family == socket.AF_INET6 else (16, slice(4, 8))
    raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERNAME, size)
    return socket.inet_ntop(sock.family, raw[where]), int.from_bytes(raw[2:4], "big")


def failed(call: str, sock: socket.socket, exc: OSError) -> KernelError:
    """The error for *call* on *sock*."""
    return KernelError(call, exc.errno or 0, describe(sock))


def set_int(sock: socket.socket, level: int, option: int, value: int, name: str) -> None:
    """setsockopt with an int; *name* is for the message."""
    try:
        sock.setsockopt(level, option, value)
    except OSError as exc:
        raise failed(f"setsockopt({name}, {value})", sock, exc) from exc


#: Level, option, value, and the option's name for the message.
Setting = tuple[int, int, int | bytes, str]


def set_each(sock: socket.socket, settings: Iterable[Setting]) -> None:
    """setsockopt for each of *settings*, up to the first that fails: 20 for a connection, so it has to be quick."""
    setting: Setting = (0, 0, 0, "")
    set_ = sock.setsockopt
    try:
        for setting in settings:
            set_(setting[0], setting[1], setting[2])
    except OSError as exc:
        *_, value, name = setting
        what = name if isinstance(value, bytes) or name in _UNSIGNED else f"{name}, {value}"
        raise failed(f"setsockopt({what})", sock, exc) from exc


def get_int(sock: socket.socket, level: int, option: int, name: str) -> int:
    """getsockopt of an int; *name* is for the message."""
    try:
        return sock.getsockopt(level, option)
    except OSError as exc:
        raise failed(f"getsockopt({name})", sock, exc) from exc


def set_bytes(sock: socket.socket, level: int, option: int, value: bytes, name: str) -> None:
    """setsockopt with a struct or a string; *name* is for the message."""
    try:
        sock.setsockopt(level, option, value)
    except OSError as exc:
        raise failed(f"setsockopt({name})", sock, exc) from exc


def get_bytes(sock: socket.socket, level: int, option: int, size: int, name: str) -> bytes:
    """getsockopt of up to *size* bytes; *name* is for the message."""
    try:
        return sock.getsockopt(level, option, size)
    except OSError as exc:
        raise failed(f"getsockopt({name})", sock, exc) from exc


def set_repair(sock: socket.socket, mode: int) -> None:
    """Enter (ON) or leave (OFF, OFF_NO_PROBE) repair mode. ON selects no queue; OFF clears SO_REUSEADDR."""
    set_int(sock, TCP, TCP_REPAIR, mode, "TCP_REPAIR")


def get_repair(sock: socket.socket) -> bool:
    """Whether *sock* is in repair mode."""
    return get_int(sock, TCP, TCP_REPAIR, "TCP_REPAIR") == ON


def select_queue(sock: socket.socket, queue: int) -> None:
    """Choose what send, recv(MSG_PEEK) and the sequence calls work on."""
    set_each(sock, [QUEUES[queue]])


def get_queue_seq(sock: socket.socket) -> int:
    """``rcv_nxt`` or ``write_seq``, by the queue selected."""
    return get_int(sock, TCP, TCP_QUEUE_SEQ, "TCP_QUEUE_SEQ") & MASK


def queue_seq(value: int) -> Setting:
    """Sets ``rcv_nxt`` and ``copied_seq``, or ``write_seq``; only before connect()."""
    return TCP, TCP_QUEUE_SEQ, _int(value), "TCP_QUEUE_SEQ"


def _int(value: int) -> int:
    """The int with the bits of *value*: setsockopt() of Python takes three times as long for bytes."""
    return value - 2**32 if value >= 2**31 else value


def negotiated(options: Sequence[tuple[int, int]]) -> Setting:
    """Sets what the handshake would have: pairs of OPT_ code and value; only in ESTABLISHED, nothing sent."""
    flat = [number for pair in options for number in pair]
    return TCP, TCP_REPAIR_OPTIONS, _OPTIONS[len(options)].pack(*flat), "TCP_REPAIR_OPTIONS"


def get_window(sock: socket.socket) -> Window:
    """The window as the kernel keeps it; only in repair mode."""
    return Window(*_WINDOW.unpack(get_bytes(sock, TCP, TCP_REPAIR_WINDOW, _WINDOW.size, "TCP_REPAIR_WINDOW")))


def get_send_window(sock: socket.socket) -> int:
    """``snd_wnd`` alone; only in repair mode."""
    raw = get_bytes(sock, TCP, TCP_REPAIR_WINDOW, _WINDOW.size, "TCP_REPAIR_WINDOW")
    return int(_WINDOW.unpack(raw)[1])


def takes_window(sock: socket.socket, window: Window) -> bool:
    """As :func:`set_window`; False: it was refused with EINVAL, and nothing has changed."""
    try:
        set_window(sock, window)
    except KernelError as exc:
        if exc.errno != errno.EINVAL:
            raise
        return False
    return True


def set_window(sock: socket.socket, window: Window) -> None:
    """Set the window; EINVAL where snd_wnd > max_window, snd_wl1 > rcv_nxt + rcv_wnd or rcv_wup > rcv_nxt."""
    set_each(sock, [window_(window)])


def window_(window: Window) -> Setting:
    """As :func:`set_window`, for :func:`set_each`."""
    return window_of(window.snd_wl1, window.snd_wnd, window.max_window, window.rcv_wnd, window.rcv_wup)


def window_of(snd_wl1: int, snd_wnd: int, max_window: int, rcv_wnd: int, rcv_wup: int) -> Setting:
    """As :func:`window_`, without the object, which takes longer than the call."""
    packed = _WINDOW.pack(snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup)
    return TCP, TCP_REPAIR_WINDOW, packed, "TCP_REPAIR_WINDOW"


def get_timestamp(sock: socket.socket) -> int:
    """The clock of the timestamp option, its bit 0 replaced: 1 where a tick is 1 us, 0 where it is 1 ms."""
    return get_int(sock, TCP, TCP_TIMESTAMP, "TCP_TIMESTAMP") & MASK


def timestamp(value: int) -> Setting:
    """Makes the clock of the timestamp option go on from *value*; bit 0 set means ticks of 1 us."""
    return TCP, TCP_TIMESTAMP, _int(value), "TCP_TIMESTAMP"


def get_mss_clamp(sock: socket.socket) -> int:
    """``mss_clamp``; only in repair mode, else TCP_MAXSEG is the segment size in use."""
    return get_int(sock, TCP, TCP_MAXSEG, "TCP_MAXSEG")


def resize_segments(sock: socket.socket, ipv6: bool) -> None:
    """Make the kernel compute the segment size again.

    At connect() it used the default of 536, and TCP_REPAIR_OPTIONS does not recompute it. Setting no IP
    options does, through icsk_sync_mss() (net/ipv4/ip_sockglue.c do_ip_setsockopt()). For IPv6 the options
    must not be NULL (net/ipv6/ipv6_sockglue.c ipv6_update_options()): an IPV6_2292PKTOPTIONS too short for
    any message gives some without content, and one of length 0 takes them away again.
    """
    set_each(sock, RESIZING[ipv6])


def get_info(sock: socket.socket) -> Info:
    """TCP_INFO. Works on every TCP socket; a kernel that returns more or less is understood."""
    raw = get_bytes(sock, TCP, TCP_INFO, _INFO.size, "TCP_INFO")
    f = _INFO.unpack(raw.ljust(_INFO.size, b"\0"))
    # Two bit fields of four in one byte: the first one is the low half on little-endian machines only.
    low, high = f[6] & 15, f[6] >> 4
    snd_wscale, rcv_wscale = (low, high) if sys.byteorder == "little" else (high, low)
    return Info(f[0], f[5], snd_wscale, rcv_wscale, f[10], *f[23:28])


def get_state(sock: socket.socket) -> int:
    """``tcpi_state``, as :class:`tcpcp.record.ici.State`: the first byte of TCP_INFO."""
    return get_bytes(sock, TCP, TCP_INFO, 1, "TCP_INFO")[0]


def get_cookie(sock: socket.socket) -> int:
    """The kernel's own number of the socket, never used twice; made when first asked for."""
    raw = get_bytes(sock, socket.SOL_SOCKET, SO_COOKIE, 8, "SO_COOKIE")
    return int.from_bytes(raw, sys.byteorder)


def get_segments_in(sock: socket.socket) -> int:
    """``tcpi_segs_in``: how many segments have arrived for the socket."""
    raw = get_bytes(sock, TCP, TCP_INFO, _SEGMENTS_IN.size, "TCP_INFO")
    return int(_SEGMENTS_IN.unpack(raw)[0])


def get_pacing(sock: socket.socket) -> tuple[int, int]:
    """``tcpi_pacing_rate``, bytes/s, and ``tcpi_min_rtt``, us; 0 where the kernel does not tell."""
    raw = get_bytes(sock, TCP, TCP_INFO, _PACING.size, "TCP_INFO")
    rate, min_rtt = _PACING.unpack(raw.ljust(_PACING.size, b"\0"))
    return rate, min_rtt


def get_congestion(sock: socket.socket) -> str:
    """Name of the congestion control algorithm, by which it can be chosen.

    DCTCP without ECN calls itself by another (net/ipv4/tcp_dctcp.c dctcp_init()).
    """
    raw = get_bytes(sock, TCP, TCP_CONGESTION, 16, "TCP_CONGESTION").split(b"\0", 1)[0]
    return "dctcp" if raw == b"dctcp-reno" else raw.decode("ascii")


def set_congestion(sock: socket.socket, algorithm: str) -> None:
    """Choose the congestion control algorithm; ENOENT when the kernel has none of that name."""
    set_bytes(sock, TCP, TCP_CONGESTION, algorithm.encode("ascii"), f"TCP_CONGESTION, {algorithm}")


def get_ulp(sock: socket.socket) -> str:
    """Name of the upper layer protocol on top of the socket (``tls``, ``mptcp``, ...), or ""."""
    return get_bytes(sock, TCP, TCP_ULP, 16, "TCP_ULP").split(b"\0", 1)[0].decode("ascii")


def _ioctl(sock: socket.socket, request: int, name: str) -> int:
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), request, _INT), sys.byteorder, signed=True)
    except ValueError:  # the descriptor of a closed socket is -1
        raise KernelError(f"ioctl({name})", errno.EBADF, describe(sock)) from None
    except OSError as exc:
        raise failed(f"ioctl({name})", sock, exc) from exc


def get_outq(sock: socket.socket) -> int:
    """``write_seq - snd_una``: bytes, and our FIN if it is not acknowledged."""
    return _ioctl(sock, SIOCOUTQ, "SIOCOUTQ")


def get_outq_nsd(sock: socket.socket) -> int:
    """``write_seq - snd_nxt``: bytes, and our FIN if it is not sent."""
    return _ioctl(sock, SIOCOUTQNSD, "SIOCOUTQNSD")


def get_inq(sock: socket.socket) -> int:
    """``rcv_nxt - copied_seq`` without the peer's FIN; without SO_OOBINLINE, only up to the urgent mark."""
    return _ioctl(sock, SIOCINQ, "SIOCINQ")


def at_mark(sock: socket.socket) -> bool:
    """Whether the next byte to read is the urgent one."""
    return bool(_ioctl(sock, SIOCATMARK, "SIOCATMARK"))


def disconnect(sock: socket.socket) -> None:
    """End the connection of *sock*, which is in repair mode: at once, for all who hold it, without a packet.

    Source: connect(2), AF_UNSPEC; net/ipv4/tcp.c tcp_disconnect().
    """
    if _libc.connect(sock.fileno(), _UNSPECIFIED, len(_UNSPECIFIED)):
        raise KernelError("connect(AF_UNSPEC)", ctypes.get_errno(), describe(sock))


def get_namespace(sock: socket.socket) -> int:
    """A number of the network namespace that *sock* belongs to, which no other has."""
    global _namespace_cookies
    if _namespace_cookies:
        try:
            return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder)
        except OSError as exc:
            if exc.errno != errno.ENOPROTOOPT:
                raise failed("getsockopt(SO_NETNS_COOKIE)", sock, exc) from exc
            _namespace_cookies = False  # before Linux 5.14
    try:
        descriptor = fcntl.ioctl(sock.fileno(), SIOCGSKNS)
    except OSError as exc:
        raise failed("ioctl(SIOCGSKNS)", sock, exc) from exc
    try:
        return os.fstat(descriptor).st_ino
    finally:
        os.close(descriptor)
