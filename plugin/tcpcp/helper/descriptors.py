"""What travels beside the packets: descriptors (SCM_RIGHTS), and ICI images in sealed memory.

An ICI may have 30 MB and more, far beyond a packet. It goes as a memfd that is sealed against every change:
who reads it need not fear that it shrinks or changes below him, nor that reading waits for somebody, as it
may on a pipe or on a file system of the sender's (FUSE).

Source: unix(7), memfd_create(2), fcntl(2) F_ADD_SEALS; mm/memfd.c.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import socket
import termios
from collections.abc import Iterable, Sequence

from tcpcp.errors import KernelError
from tcpcp.helper.protocol import MAX_PACKET_BYTES, MAX_SOCKETS, HelperError, ProtocolError
from tcpcp.kernel.writing import write_all

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_INT_BYTES = array.array("i").itemsize
_ROOM = socket.CMSG_SPACE((MAX_SOCKETS + 1) * _INT_BYTES)


class Shortage(HelperError):
    """This process had no descriptor free for one that was passed to it: nobody's fault who sent it.

    :ivar packet: what it came with; the descriptors that did fit are closed again.
    """

    def __init__(self, packet: bytes) -> None:
        super().__init__("no descriptor is free for what was passed (ulimit -n)")
        self.packet = packet


def send(
    connection: socket.socket, packet: bytes, descriptors: Sequence[int] = (), *, wait: bool = True
) -> None:
    """Send *packet* with *descriptors*, which stay open here.

    :param wait: False: do not wait for room, raise BlockingIOError instead.
    :raises OSError: nothing was sent.
    """
    numbers = array.array("i", descriptors)
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)] if descriptors else []
    flags = socket.MSG_NOSIGNAL | (0 if wait else socket.MSG_DONTWAIT)
    connection.sendmsg([packet], control, flags)


def receive(connection: socket.socket, *, wait: bool = True) -> tuple[bytes, list[int]]:
    """One packet and the descriptors with it, which are the caller's now; no bytes: the other side has closed.

    :raises ProtocolError: it was cut, or had more descriptors than any request; all are closed again.
    :raises Shortage: this process has no room for its descriptors.
    :raises OSError: nothing was received.
    """
    flags = socket.MSG_CMSG_CLOEXEC | (0 if wait else socket.MSG_DONTWAIT)
    packet, control, found, _ = connection.recvmsg(MAX_PACKET_BYTES, _ROOM, flags)
    descriptors: list[int] = []
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.extend(array.array("i", data[: len(data) - len(data) % _INT_BYTES]))
    if found & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close(descriptors)
        if (
            not found & socket.MSG_TRUNC and len(descriptors) <= MAX_SOCKETS
        ):  # it was not our buffer that was short
            raise Shortage(packet)
        raise ProtocolError("a packet that was too long, or had too many descriptors")
    return packet, descriptors


def has_hung_up(connection: socket.socket) -> bool:
    """Whether the other side reads nothing more."""
    poll = select.poll()
    poll.register(connection, 0)
    return bool(poll.poll(0))


def is_unread(connection: socket.socket) -> bool:
    """Whether the other side, which has shut its end, has left a packet unread.

    Source: net/unix/af_unix.c unix_outq_len(); unix_release_sock(), which sets ECONNRESET before it drops them.
    """
    waits = bytearray(_INT_BYTES)
    fcntl.ioctl(connection, termios.TIOCOUTQ, waits)
    return any(waits) or connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET


def close(descriptors: Iterable[int]) -> None:
    """Close all of them."""
    for descriptor in descriptors:
        os.close(descriptor)


def duplicate(sock: socket.socket) -> socket.socket:
    """Another descriptor for *sock*.

    :raises KernelError: there is none left.
    """
    try:
        return sock.dup()
    except OSError as exc:
        raise KernelError("dup", exc.errno or errno.EMFILE) from exc


def seal(data: bytes) -> int:
    """A descriptor of sealed memory that holds *data*; the caller closes it.

    :raises KernelError: there is no descriptor left.
    """
    try:
        descriptor = os.memfd_create("ici", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as exc:
        raise KernelError("memfd_create", exc.errno or errno.EMFILE) from exc
    try:
        write_all(descriptor, data)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_sealed(descriptor: int, limit_bytes: int) -> bytes:
    """What is in the sealed memory *descriptor*.

    :raises ProtocolError: it is something else, is not sealed, or has more than *limit_bytes*.
    """
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        raise ProtocolError("an ICI image must be in a memfd") from None
    # Only now is it known that no call below can wait for anybody.
    size = os.fstat(descriptor).st_size
    if seals & _SEALS != _SEALS:
        raise ProtocolError("the memfd with an ICI image must be sealed against every change")
    if size > limit_bytes:
        raise ProtocolError(f"an ICI image of {size} bytes; the helper takes {limit_bytes}")
    return b"".join(_pieces(descriptor, size))


def _pieces(descriptor: int, size: int) -> Iterable[bytes]:
    offset = 0
    while offset < size:
        piece = os.pread(descriptor, size - offset, offset)
        if not piece:
            raise ProtocolError("the memfd with an ICI image ends too early")
        offset += len(piece)
        yield piece
