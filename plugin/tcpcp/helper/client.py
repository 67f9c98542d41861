"""The library's calls, done by the helper; see the package."""

from __future__ import annotations

import dataclasses
import errno
import os
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType

from tcpcp.endpoint.handed_in import HasFileno, as_socket, entries, listed
from tcpcp.endpoint.uninterrupted import Uninterrupted
from tcpcp.errors import KernelError, TcpcpError, WrongArgument
from tcpcp.helper import descriptors, protocol
from tcpcp.helper.protocol import HelperError, Operation, ProtocolError, Request
from tcpcp.kernel import tcp_repair
from tcpcp.record import codec, whole
from tcpcp.record.ici import Ici

DEFAULT_PATH = "/run/tcpcp/helper.sock"
#: How long a request may take; a large one takes some seconds.
TIMEOUT_S = 30.0
#: Why sendmsg() has sent nothing, although the connection is as good as before.
_NOT_SENT = frozenset({errno.EMFILE, errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})


def connect(path: str = DEFAULT_PATH, *, timeout_s: float = TIMEOUT_S) -> Client:
    """Connect to the helper at *path*.

    :param timeout_s: how long each request may take. After that the connection is closed, and what was got or
        created through it is lost.
    :raises PermissionDenied: it does not serve this user.
    :raises OtherNamespace: it works in another network namespace.
    :raises HelperError: it is not there, or has too much to do.
    :raises KernelError: there is no descriptor free for it, or no memory.
    """
    connection = tcp_repair.opened(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(timeout_s)
        connection.connect(path)
    except (TypeError, ValueError) as error:
        connection.close()
        raise WrongArgument(f"{path!r}: no path: {error}") from error
    except OSError as error:
        connection.close()
        raise HelperError(f"{path}: {error.strerror or error}: is the helper running?") from error
    client = Client(connection)
    client.greet()
    return client


class Client:
    """A connection to the helper, for one process and all its threads; a context manager.

    The calls are the library's: the same names, what holds afterwards, and exceptions. Beside those each may
    raise :class:`HelperError`: the helper is gone, and with it this connection. A socket that was got and not
    finished with is then in repair mode still; see docs/helper.md. Signals wait until a call is over, *timeout_s*
    at most, as in the library. Where this process has no descriptor free for what a call needs, it raises
    ``KernelError`` with EMFILE, and sockets and connection are as before.

    One request takes at most :data:`tcpcp.helper.protocol.MAX_SOCKETS` sockets.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def greet(self) -> None:
        """Wait until the helper takes us in."""
        with self._lock:
            descriptors.close(self._receive())

    def close(self) -> None:
        """Say good-bye: what was got through this object and not released or resumed runs again; what was
        created and not activated ends silently. A program that ends without it loses both, silently."""
        with self._lock:
            if self._connection.fileno() < 0:
                return
            if (
                os.getpid() != self._pid
            ):  # a child: the connection, and what is held through it, are the parent's
                self._connection.close()
                return
            try:
                descriptors.send(self._connection, protocol.pack_request(Request(Operation.LEAVE, 0)))
                descriptors.close(self._receive())
            except (OSError, HelperError):
                pass  # it is gone already
            self._connection.close()

    def get(self, sock: HasFileno) -> Ici:
        """As :func:`tcpcp.get`."""
        return self.get_many([sock])[0]

    def get_many(self, socks: Iterable[HasFileno | tuple[int, HasFileno]]) -> list[Ici]:
        """As :func:`tcpcp.get_many`."""
        pairs = entries(socks)
        if not pairs:
            return []
        icis: list[Ici] = []
        try:
            with Uninterrupted():
                icis = self._get(pairs)
        except BaseException as error:
            if icis:  # a handler's, whose signal had to wait: nobody will have them
                self._resume_after([sock for _, sock in pairs], error)
            raise
        return icis

    def _get(self, pairs: Sequence[tuple[int, HasFileno]]) -> list[Ici]:
        plain = [sock for _, sock in pairs]
        image = self._got(plain)
        try:
            icis = codec.loads_many(descriptors.read_sealed(image, 2 * codec.MAX_MESSAGE_BYTES))
            return [
                dataclasses.replace(ici, tag=tag) if tag else ici
                for (tag, _), ici in zip(pairs, icis, strict=True)
            ]
        except BaseException as error:  # no memory: nobody will have them
            self._resume_after(plain, error)
            raise
        finally:
            descriptors.close([image])

    def _got(self, socks: Sequence[HasFileno]) -> int:
        """The descriptor of their image; without one they are not got."""
        try:
            (image,) = self._ask(Operation.GET, socks, replies=1)
        except descriptors.Shortage:
            error = KernelError("recvmsg(SCM_RIGHTS)", errno.EMFILE)
            self._resume_after(socks, error)
            raise error from None
        return image

    def _resume_after(self, socks: Sequence[HasFileno], error: BaseException) -> None:
        try:
            self.resume_many(socks)
        except TcpcpError as exc:
            error.add_note(f"and in resuming: {exc}")

    def create(self, ici: Ici) -> socket.socket:
        """As :func:`tcpcp.create`. The socket is this process's own: the helper is given it to work on.

        :raises PermissionDenied: also what this user may not have of it (docs/helper.md).
        """
        return self.create_many([ici])[0]

    def create_many(self, icis: Iterable[Ici]) -> list[socket.socket]:
        """As :func:`tcpcp.create_many`."""
        icis = listed(icis, "ICIs")
        whole.require(icis)
        if not icis:
            return []
        made: list[socket.socket] = []
        created = False
        try:
            with Uninterrupted():
                self._create(icis, made)
                created = True
        except BaseException as error:
            if created:  # a handler's, whose signal had to wait: the helper has them too
                self._release_after(made, error)
            for sock in made:
                sock.close()
            raise
        return made

    def _create(self, icis: Sequence[Ici], made: list[socket.socket]) -> None:
        with _typed("memfd_create"):
            image = descriptors.seal(b"".join(map(codec.dumps, icis)))
        try:
            made.extend(map(_fresh, icis))
            self._ask(Operation.CREATE, made, [image])
        finally:
            descriptors.close([image])

    def _release_after(self, socks: Sequence[socket.socket], error: BaseException) -> None:
        try:
            self.release_many(socks)
        except TcpcpError as exc:
            error.add_note(f"and in releasing: {exc}")

    def activate(self, sock: HasFileno) -> None:
        """As :func:`tcpcp.activate`."""
        self.activate_many([sock])

    def activate_many(self, socks: Iterable[HasFileno]) -> None:
        """As :func:`tcpcp.activate_many`."""
        self._ask(Operation.ACTIVATE, listed(socks))

    def release(self, sock: HasFileno) -> None:
        """As :func:`tcpcp.release`; *sock* is closed."""
        self.release_many([sock])

    def release_many(self, socks: Iterable[HasFileno]) -> None:
        """As :func:`tcpcp.release_many`; sockets are closed, what stands for one has no connection any more."""
        socks = listed(socks)
        self._ask(Operation.RELEASE, socks)
        for sock in socks:
            if isinstance(sock, socket.socket):
                sock.close()

    def resume(self, sock: HasFileno) -> None:
        """As :func:`tcpcp.resume`."""
        self.resume_many([sock])

    def resume_many(self, socks: Iterable[HasFileno]) -> None:
        """As :func:`tcpcp.resume_many`."""
        self._ask(Operation.RESUME, listed(socks))

    def renew(self, sock: HasFileno) -> None:
        """As :func:`tcpcp.renew`."""
        self.renew_many([sock])

    def renew_many(self, socks: Iterable[HasFileno]) -> None:
        """As :func:`tcpcp.renew_many`."""
        self._ask(Operation.RENEW, listed(socks))

    def _ask(
        self,
        operation: Operation,
        socks: Sequence[HasFileno],
        images: Sequence[int] = (),
        replies: int = 0,
    ) -> list[int]:
        """The descriptors that came with a good reply, *replies* of them."""
        if not socks:
            return []
        packet = protocol.pack_request(Request(operation, len(socks)))
        if os.getpid() != self._pid:
            raise HelperError("this connection to the helper is the parent's; a child makes its own")
        with Uninterrupted(), self._lock, ExitStack() as stack:
            self._require_open()
            numbers = [*images, *(as_socket(sock, stack).fileno() for sock in socks)]
            for one in [descriptors.duplicate(self._connection) for _ in range(replies)]:
                one.close()  # there is room for what comes with the reply; else the kernel would drop it
            received = self._exchange(packet, numbers)
        if len(received) != replies:
            descriptors.close(received)
            raise ProtocolError(f"{len(received)} descriptors with the reply instead of {replies}")
        return received

    def _require_open(self) -> None:
        if self._connection.fileno() < 0:
            raise HelperError("this connection to the helper has been closed, or it has ended; make another")

    def _exchange(self, packet: bytes, numbers: Sequence[int]) -> list[int]:
        """Send a request and wait for its reply; whatever comes between ends the connection."""
        try:
            descriptors.send(self._connection, packet, numbers)
            return self._receive()
        except OSError as error:  # of sendmsg(): the other's are typed
            if error.errno in _NOT_SENT:
                raise KernelError("sendmsg(SCM_RIGHTS)", error.errno) from error
            raise self._lost(error) from error
        except TcpcpError:
            raise
        except BaseException:  # whatever it is, the reply is still to come
            self._hang_up()
            raise

    def _receive(self) -> list[int]:
        """The descriptors with the next reply."""
        try:
            packet, received = descriptors.receive(self._connection)
        except OSError as error:
            raise self._lost(error) from error
        if not packet:
            raise self._lost(None)
        failure = protocol.parse_reply(packet)
        if failure is not None:
            descriptors.close(received)
            raise protocol.error_of(failure)
        return received

    def _lost(self, error: OSError | None) -> HelperError:
        """Whatever the helper says later would be the answer to something else."""
        self._hang_up()
        reason = "it has closed the connection" if error is None else error.strerror or str(error)
        return HelperError(f"the helper is gone: {reason}")

    def _hang_up(self) -> None:
        """So that the helper begins nothing more of what was asked, also where a child has the descriptor too."""
        with suppress(OSError):  # it is gone already
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


@contextmanager
def _typed(call: str) -> Iterator[None]:
    """An OSError of *call* as the library has it."""
    try:
        yield
    except OSError as error:
        raise KernelError(call, error.errno or errno.EIO) from error


def _fresh(ici: Ici) -> socket.socket:
    """Made here and not by the helper: the owner, the control group, the label of this program go with it."""
    sock = tcp_repair.opened(ici.family, socket.SOCK_STREAM)
    sock.settimeout(None)  # whatever socket.setdefaulttimeout() was told
    return sock
