"""Descriptors of other processes: pidfd_open(2) and pidfd_getfd(2).

A borrowed descriptor is a duplicate: it shares the open file description with its owner, so what is set
through it (a socket option, O_NONBLOCK) is set for the owner too. The owner may be stopped or frozen.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from types import TracebackType

from tcpcp.errors import KernelError, PermissionDenied

#: The same number on every architecture that CRIU supports (include/uapi/asm-generic/unistd.h).
_SYS_PIDFD_GETFD = 438

# glibc has a wrapper only since 2.36, and musl has none.
_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_uint]
_syscall.restype = ctypes.c_long


class Lender:
    """Borrows descriptors, and remembers one pidfd per process; a context manager.

    A pidfd names the process and not its number: a number that is used again never lends a stranger's file.
    Not for several threads at once.
    """

    def __init__(self) -> None:
        self._pidfds: dict[int, int] = {}

    def __enter__(self) -> Lender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forget all processes; sockets already borrowed stay open."""
        pidfds, self._pidfds = self._pidfds, {}
        for pidfd in pidfds.values():
            os.close(pidfd)

    def pidfd(self, pid: int) -> int:
        """Return a pidfd of *pid*, which stays ours.

        :raises KernelError: ESRCH, there is no such process; nothing is remembered.
        Source: man pidfd_open(2).
        """
        if pid not in self._pidfds:
            try:
                self._pidfds[pid] = os.pidfd_open(pid)
            except OSError as error:
                raise _error("pidfd_open", error.errno or errno.EIO, f"process {pid}") from None
        return self._pidfds[pid]

    def descriptor(self, pid: int, fd: int) -> int:
        """Duplicate descriptor *fd* of process *pid*; the caller closes it. Close-on-exec is set.

        :raises PermissionDenied: CAP_SYS_PTRACE is missing, or a security module objects.
        :raises KernelError: ESRCH, the process has ended; EBADF, it has no such descriptor.
        Source: man pidfd_getfd(2).
        """
        duplicate = int(_syscall(_SYS_PIDFD_GETFD, self.pidfd(pid), fd, 0))
        if duplicate < 0:
            raise _error("pidfd_getfd", ctypes.get_errno(), f"descriptor {fd} of process {pid}")
        return duplicate

    def borrow(self, pid: int, fd: int, tcp_family: int = -1) -> socket.socket:
        """Duplicate the socket *fd* of process *pid*; the caller closes it.

        The socket's blocking mode is not touched, for it is the owner's; use MSG_DONTWAIT.

        :param tcp_family: of what is known to be a TCP socket, so that Python need not ask the kernel what it is.

        :raises PermissionDenied, KernelError: as :meth:`descriptor`; also ENOTSOCK, it is no socket.
        """
        duplicate = self.descriptor(pid, fd)
        try:
            if tcp_family >= 0:
                return socket.socket(tcp_family, socket.SOCK_STREAM, socket.IPPROTO_TCP, duplicate)
            return socket.socket(fileno=duplicate)
        except OSError as error:
            os.close(duplicate)
            raise _error(
                "getsockname", error.errno or errno.EIO, f"descriptor {fd} of process {pid}"
            ) from None


def borrow(pid: int, fd: int) -> socket.socket:
    """Borrow one socket; see :meth:`Lender.borrow`, which is cheaper for many."""
    with Lender() as lender:
        return lender.borrow(pid, fd)


def _error(call: str, number: int, what: str) -> KernelError | PermissionDenied:
    if number == errno.EPERM:
        return PermissionDenied(f"{call} for {what}: CAP_SYS_PTRACE is missing, or a security module objects")
    return KernelError(call, number, what)
