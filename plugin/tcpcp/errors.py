"""What can go wrong in `tcpcp`. Anything else that escapes it is a bug."""

from __future__ import annotations

import os
from typing import ClassVar


class TcpcpError(Exception):
    """Base of every error that `tcpcp` raises on purpose.

    :cvar hint: what can be done about one of its kind; a sentence, or "" where its text says it.
    """

    hint: ClassVar[str] = ""


class IciError(TcpcpError):
    """An ICI that must not be given to the kernel.

    :ivar problems: everything that is wrong with it, each a sentence; at least one.
    """

    hint = (
        "Give this host what is named; if it is nothing of a host's, look whether both have the same version."
    )

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems

    def __reduce__(self) -> tuple[type, tuple[list[str]], dict[str, object]]:
        """To another process or a copy, as it is: BaseException would make it anew from its text."""
        return type(self), (self.problems,), self.__dict__


class WrongArgument(TcpcpError, TypeError, ValueError):
    """An argument of a kind, or with a value, that the call does not know; nothing was tried."""


class CodecError(TcpcpError):
    """Bytes that are not an ICI image: wrong magic, cut, changed, or of another version."""

    hint = "Look whether both hosts have the same version, and try again."


class Unsupported(TcpcpError):
    """The socket uses something that cannot be passed; it is as it was before the call."""

    hint = "Have the program close that connection, or do without what is named, and try again."


class Unfed(Unsupported):
    """A segment fed to this host's own stack did not arrive: a packet filter drops it, or gives it another mark."""

    hint = (
        "Look for a packet filter on that host that drops what it sends to itself, or sets a mark of its own on it "
        "(nft list ruleset)."
    )


class PermissionDenied(TcpcpError):
    """CAP_NET_ADMIN (or CAP_NET_RAW, CAP_NET_BIND_SERVICE, CAP_SYS_PTRACE where said) is missing."""

    hint = "Run it as root, or with CAP_NET_ADMIN and CAP_NET_RAW, and CAP_NET_BIND_SERVICE for ports below 1024."


#: For the message of a :class:`PermissionDenied`.
REMEDY = (
    "run as root, or give the program CAP_NET_ADMIN and CAP_NET_RAW, and CAP_NET_BIND_SERVICE to create "
    "connections of ports below 1024 (setcap(8), systemd.exec(5))"
)


def no_net_admin() -> PermissionDenied:
    """What every call says that needs the capability, whichever part of it finds out."""
    return PermissionDenied(f"CAP_NET_ADMIN is missing in this network namespace: {REMEDY}")


def no_bind_service(port: int) -> PermissionDenied:
    """What bind() refuses with EACCES."""
    return PermissionDenied(
        f"local port {port} is below net.ipv4.ip_unprivileged_port_start, which takes CAP_NET_BIND_SERVICE: "
        f"{REMEDY}"
    )


class KernelError(TcpcpError):
    """A system call failed.

    :ivar call: the call with its option, e.g. ``setsockopt(TCP_REPAIR)``.
    :ivar errno: the kernel's error number.
    :ivar connection: the connection it was about, e.g. ``10.77.1.100:80 - 10.77.2.1:40000``, or "".
    """

    def __init__(self, call: str, errno_: int, connection: str = "") -> None:
        where = f" for {connection}" if connection else ""
        super().__init__(f"{call}{where}: {os.strerror(errno_)}")
        self.call = call
        self.errno = errno_
        self.connection = connection

    def __reduce__(self) -> tuple[type, tuple[str, int, str], dict[str, object]]:
        """As :meth:`IciError.__reduce__`."""
        return type(self), (self.call, self.errno, self.connection), self.__dict__


class IsolationError(TcpcpError):
    """The packet filter could not be changed; nothing of the batch is in force.

    :ivar errno: the kernel's error number, or 0 where there is none.
    """

    hint = "Look whether nftables works there: nft list ruleset."

    def __init__(self, message: str, errno_: int = 0) -> None:
        super().__init__(message)
        self.errno = errno_


class Expired(TcpcpError):
    """The isolation of a connection has run out, or was removed: packets may have reached its socket since.

    An ICI read before that does not describe the connection any more.
    """

    hint = "The host stood still, or somebody removed the filter: look who, and try again."


class Moved(Expired):
    """A call that had begun before :func:`tcpcp.get` has read from the connection, or written to it, since.

    The ICI has what was read there, and lacks what was written; nothing has changed, unless *lost_bytes* is not 0.

    :ivar lost_bytes: so many, an end of the stream being one, a thread has written in the very moment in which
        :func:`tcpcp.release` ended the connection, after it had looked. There is nothing left here that could be
        resumed: these bytes are nowhere, though the thread was told that they are written. The ICI is right but for
        them.
    """

    hint = "Have the program's threads leave that connection alone, and get it anew."

    def __init__(self, message: str, lost_bytes: int = 0) -> None:
        super().__init__(message)
        self.lost_bytes = lost_bytes


class OtherNamespace(TcpcpError):
    """The socket is of another network namespace than the calling thread; nothing has changed."""


class AlreadyGot(TcpcpError):
    """The socket is in repair mode already: it was got, or created and not activated; nothing has changed."""

    hint = "Look for another program there that passes this connection, and try again when it has ended."


class NotGot(TcpcpError):
    """This process has neither got nor created the socket, or it runs already, or it was given twice.

    Or another thread is getting or creating it still. Nothing has changed.
    """


class AddressInUse(TcpcpError):
    """The connection exists on this host already, or its local port is taken; nothing was created."""

    hint = "Look who has it there (ss -tnp), and try again without."
