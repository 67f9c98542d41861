"""What is in the queues of a socket, which stay as they are: MSG_PEEK.

Source: net/ipv4/tcp.c tcp_recvmsg_locked(), tcp_peek_sndq().
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct

from tcpcp.errors import KernelError
from tcpcp.kernel import tcp_repair
from tcpcp.kernel.tcp_repair import NO_QUEUE, SEND_QUEUE

_libc = ctypes.CDLL(None, use_errno=True)
#: The same, and no other thread of a Python program runs in a call: these keep the interpreter's lock.
_alone = ctypes.PyDLL(None, use_errno=True)
for _library in (_libc, _alone):
    _library.recv.restype = ctypes.c_ssize_t
    _library.recv.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_alone.setsockopt.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
_alone.getsockopt.argtypes = [*[ctypes.c_int] * 3, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint)]
_BYTES = 4
#: How often a queue that grows is read again.
_TRIES = 5
_SELECTING = {n: struct.pack("=I", n) for n in (NO_QUEUE, SEND_QUEUE)}


def receive_queue(sock: socket.socket, size_bytes: int) -> bytes:
    """The first *size_bytes* of the receive queue, which stays as it is; fewer if there are fewer.

    Out of repair mode. Not through Python's own recv(), which waits where a socket has a timeout.
    """
    buffer = ctypes.create_string_buffer(size_bytes)
    count = _libc.recv(sock.fileno(), buffer, size_bytes, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    return buffer.raw[: _counted(sock, count, ctypes.get_errno())]


def _counted(sock: socket.socket, count: int, error: int) -> int:
    if count >= 0:
        return count
    if error in (errno.EAGAIN, errno.EWOULDBLOCK):
        return 0
    raise KernelError("recv(MSG_PEEK)", error, tcp_repair.describe(sock))


def send_queue(sock: socket.socket, size_bytes: int) -> tuple[int, bytes]:
    """``write_seq``, and the last *size_bytes* of the send queue, fewer if there are fewer. In repair mode.

    The queue is selected, read, and no queue is selected again, in a few microseconds mostly: no call of these lets
    another thread of a Python program run, but the interpreter may between two of them.

    The kernel begins with whole buffers, also where the peer has acknowledged a part of the first, and says
    how many bytes it has, whatever the room for them (tcp_peek_sndq()).
    """
    room = size_bytes
    for _ in range(_TRIES):
        write_seq, data, count = _send_queue(sock, room)
        if not size_bytes or count <= room:
            break
        room = count
    else:
        raise KernelError("recv(MSG_PEEK)", errno.EBUSY, f"{tcp_repair.describe(sock)}, which is written to")
    return write_seq, data[max(count - size_bytes, 0) : count]


def _send_queue(sock: socket.socket, size_bytes: int) -> tuple[int, bytes, int]:
    """``write_seq``, what there is room for, and how much there is."""
    number, buffer = sock.fileno(), ctypes.create_string_buffer(size_bytes)
    write_seq, length, count, error = ctypes.c_uint32(), ctypes.c_uint(_BYTES), 0, 0
    _select_alone(sock, SEND_QUEUE)
    try:
        if _alone.getsockopt(
            number, tcp_repair.TCP, tcp_repair.TCP_QUEUE_SEQ, ctypes.byref(write_seq), ctypes.byref(length)
        ):
            raise KernelError("getsockopt(TCP_QUEUE_SEQ)", ctypes.get_errno(), tcp_repair.describe(sock))
        if size_bytes:
            count = _alone.recv(number, buffer, size_bytes, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            error = ctypes.get_errno()
    finally:
        _select_alone(sock, NO_QUEUE)
    return write_seq.value, buffer.raw, _counted(sock, count, error)


def _select_alone(sock: socket.socket, queue: int) -> None:
    if _alone.setsockopt(
        sock.fileno(), tcp_repair.TCP, tcp_repair.TCP_REPAIR_QUEUE, _SELECTING[queue], _BYTES
    ):
        raise KernelError(
            f"setsockopt(TCP_REPAIR_QUEUE, {queue})", ctypes.get_errno(), tcp_repair.describe(sock)
        )
