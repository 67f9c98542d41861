"""What a descriptor of another process says of itself, when it is borrowed for a moment."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import termios
from collections.abc import Iterator

from migrate.inventory import momentary
from tcpcp.errors import KernelError, PermissionDenied
from tcpcp.kernel.pidfd import Lender

#: Source: include/uapi/asm-generic/ioctls.h, an int; of MIPS, PowerPC and SPARC it is another one.
_TIOCGEXCL, _INT_BYTES = 0x80045440, 4
#: struct epoll_params of include/uapi/linux/eventpoll.h.
_EPIOCGPARAMS, _PARAMS_BYTES = 0x80088A02, 8
#: Source: include/uapi/linux/fcntl.h, 64 bits.
_F_GET_RW_HINT, _HINT_BYTES = 1035, 8


@contextlib.contextmanager
def borrowed(lender: Lender, pid: int, fd: int) -> Iterator[int | None]:
    """A duplicate of the descriptor meanwhile; None: it was closed since, or is a place only (O_PATH).

    Such a one has nothing to tell of what is there. Source: man open(2).
    """
    try:
        lent = lender.descriptor(pid, fd)
    except (KernelError, PermissionDenied):
        yield None
        return
    try:
        yield None if fcntl.fcntl(lent, fcntl.F_GETFL) & os.O_PATH else lent
    finally:
        os.close(lent)


def has_owner(lender: Lender, pid: int, fd: int) -> bool:
    """Whether somebody is sent signals for this directory, which nothing but dnotify does.

    Source: fs/notify/dnotify/dnotify.c fcntl_dirnotify().
    """
    with borrowed(lender, pid, fd) as folder:
        return folder is not None and fcntl.fcntl(folder, fcntl.F_GETOWN) != 0


def has_ended(lender: Lender, pid: int, fd: int) -> bool:
    """Whether there is a hang-up or an error to be told of this descriptor."""
    with borrowed(lender, pid, fd) as file:
        return file is not None and _events(file) & (select.POLLHUP | select.POLLERR) != 0


def has_events(lender: Lender, pid: int, fd: int) -> bool:
    """Whether the process has not read yet what happened to what this descriptor watches."""
    with borrowed(lender, pid, fd) as watching:
        return watching is not None and momentary.unread_bytes(watching) > 0


def by_lines(lender: Lender, pid: int, fd: int) -> bool:
    """Whether the terminal of which this is the master gives what is typed line by line (ICANON)."""
    with borrowed(lender, pid, fd) as master, contextlib.suppress(termios.error):
        return master is not None and bool(termios.tcgetattr(master)[3] & termios.ICANON)
    return False


def has_input(lender: Lender, pid: int, fd: int) -> bool:
    """Whether something waits to be read from this side of a terminal; half typed lines do not show.

    What was just written is on its way until poll(2) looks for it, which by itself may want more bytes than there
    are (VMIN). Source: drivers/tty/n_tty.c n_tty_poll(), n_tty_ioctl().
    """
    with borrowed(lender, pid, fd) as side, contextlib.suppress(OSError):
        return side is not None and (_events(side, select.POLLIN) != 0 or momentary.unread_bytes(side) > 0)
    return False


def is_exclusive(lender: Lender, pid: int, fd: int) -> bool:
    """Whether this side of a terminal is one that nobody else may open (TIOCEXCL). Source: man ioctl_tty(2)."""
    with borrowed(lender, pid, fd) as side, contextlib.suppress(OSError):
        return side is not None and any(fcntl.ioctl(side, _TIOCGEXCL, bytes(_INT_BYTES)))
    return False


def polls_busily(lender: Lender, pid: int, fd: int) -> bool:
    """Whether this epoll has been told how to wait for networks (EPIOCSPARAMS, since Linux 6.9)."""
    with borrowed(lender, pid, fd) as epoll, contextlib.suppress(OSError):
        return epoll is not None and any(fcntl.ioctl(epoll, _EPIOCGPARAMS, bytes(_PARAMS_BYTES)))
    return False


def has_hint(lender: Lender, pid: int, fd: int) -> bool:
    """Whether the kernel was told how long what is written to this file will live (F_SET_RW_HINT)."""
    with borrowed(lender, pid, fd) as file, contextlib.suppress(OSError):
        return file is not None and any(fcntl.fcntl(file, _F_GET_RW_HINT, bytes(_HINT_BYTES)))
    return False


def is_hung_up(lender: Lender, pid: int, fd: int) -> bool:
    """Whether nobody has the other end of this pipe any more; then it stays so on the other host."""
    with borrowed(lender, pid, fd) as pipe:
        return pipe is None or _events(pipe) != 0


def _events(descriptor: int, asked: int = 0) -> int:
    """What poll() says of it, by default unasked."""
    poll = select.poll()
    poll.register(descriptor, asked)
    return next((events for _, events in poll.poll(0)), 0)
