"""The process that works for one user: takes his connections from the server, and answers what they ask.

Each user has a process of his own, for a descriptor can be made to block whoever touches it (a file system of
the user's own that does not answer, a socket whose lock a thread holds that waits for memory): one who does
that keeps nobody waiting but himself. It answers one request after the other.

When the server has gone, or lets it go, or on SIGTERM, it begins nothing new, and ends when nothing is held any
more; at the latest when every isolation has run out, for then what was got is void, and is resumed. An error of
its own ends neither it nor what it holds.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence

from tcpcp.endpoint import beforehand, isolation
from tcpcp.errors import TcpcpError
from tcpcp.helper import descriptors, protocol, room
from tcpcp.helper.bounds import Bounds
from tcpcp.helper.held import Caller, Holding
from tcpcp.helper.policy import parse_rights
from tcpcp.helper.protocol import Failure, HelperError, Operation, ProtocolError, failure_of
from tcpcp.helper.service import Service

#: What the server sends begins with it, so that it is never empty; the rights follow, a connection is beside.
HAND_OVER = b"R"
#: What the client takes for failed when it hangs up before the reply, and may have told others so. To release or
#: resume is what it wanted to become of a connection, and renewing harms nobody.
_NOT_FOR_NOBODY = frozenset({Operation.GET, Operation.CREATE, Operation.ACTIVATE})
#: So that an error that comes again and again does not take the whole processor.
_AFTER_ERROR_S = 0.1


class Worker:
    """One user's.

    :param server: where the user's connections come from, each with what its user may claim.
    """

    def __init__(self, server: socket.socket, uid: int, bounds: Bounds) -> None:
        self._server, self._uid, self._bounds = server, uid, bounds
        self._service = Service(Holding(bounds))
        self._callers: dict[int, Caller] = {}
        self._taken = self._told = 0
        self._finished = 0
        self._poll = select.poll()
        self._poll.register(server, select.POLLIN)
        self._until: float | None = None

    def run(self) -> None:
        """Work until the end is near and nothing is held any more."""
        woken = _wake_on_end()
        self._poll.register(woken, select.POLLIN)
        while not self._over():
            for number, _ in self._poll.poll(self._pause_ms()):
                if number == woken.fileno():
                    woken.recv(100)
                    self._end_soon()
                else:
                    self._attend(number)
            self._tell_idle()
        self._service.end()

    def _pause_ms(self) -> float | None:
        """Until there is something to look after although nothing comes."""
        if self._until is not None:
            return 200
        silent_s = self._service.held.silent_s()
        return silent_s * 1000 + 1 if silent_s else None

    def _attend(self, number: int) -> None:
        """Something came by the descriptor *number*. Whatever goes wrong, others may have sockets here."""
        try:
            if number == self._server.fileno():
                self._take()
            elif number in self._callers:
                self._serve(self._callers[number])
        except Exception:
            traceback.print_exc()
            time.sleep(_AFTER_ERROR_S)

    def _tell_idle(self) -> None:
        """Let the server know that all the connections it has handed over have gone, and nothing is held.

        Nor was anything released in the last minute: another worker would not know of that.
        """
        held = self._service.held
        if self._callers or held or held.silent() or self._told == self._taken or self._until is not None:
            return
        with contextlib.suppress(OSError):  # it has gone, or does not listen: then it will not let us go
            self._server.send(str(self._taken).encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        self._told = self._taken

    def _over(self) -> bool:
        if self._until is None:
            return False
        return not self._service.held or time.monotonic() > self._until

    def _end_soon(self) -> None:
        if self._until is None:
            self._until = time.monotonic() + isolation.TIMEOUT_S
            self._service.ending = True
            self._poll.unregister(self._server)

    def _take(self) -> None:
        """A connection from the server, or its end."""
        self._taken += 1
        try:
            packet, received = descriptors.receive(self._server)
        except ConnectionError:
            packet, received = b"", []
        if not packet:
            self._end_soon()
            return
        connection = socket.socket(fileno=received[0])
        if len(self._callers) >= self._bounds.connections:
            refusal = HelperError(
                f"this user has {len(self._callers)} connections already, which is the limit"
            )
            _reply(connection, failure_of(refusal))
            connection.close()
            return
        rights = parse_rights(packet[len(HAND_OVER) :].decode())
        caller = Caller(connection, self._uid, rights)
        self._callers[connection.fileno()] = caller
        self._poll.register(connection, select.POLLIN)
        if not _reply(connection, None):
            self._drop(caller, orderly=False)

    def _serve(self, caller: Caller) -> None:
        try:
            packet, received = descriptors.receive(caller.connection, wait=False)
        except BlockingIOError:
            return
        except descriptors.Shortage as shortage:
            refusal = HelperError(f"the helper: {shortage}; nothing has changed")
            self._say(caller, failure_of(refusal))
            return
        except ConnectionResetError:
            self._drop(caller, orderly=False, unread=True)
            return
        except (OSError, ProtocolError) as error:
            self._refuse(caller, error)
            return
        if not packet:
            descriptors.close(received)
            self._drop(caller, orderly=False, unread=descriptors.is_unread(caller.connection))
            return
        try:
            request = protocol.parse_request(packet)
        except ProtocolError as error:
            descriptors.close(received)
            self._refuse(caller, error)
            return
        if request.operation is Operation.LEAVE:
            descriptors.close(received)
            self._drop(caller, orderly=True)
            return
        if request.operation in _NOT_FOR_NOBODY and descriptors.has_hung_up(caller.connection):
            descriptors.close(received)
            self._drop(caller, orderly=False)
            return
        self._answer(caller, request, received)

    def _answer(self, caller: Caller, request: protocol.Request, received: Sequence[int]) -> None:
        failure, reply = None, []
        try:
            reply = self._service.answer(caller, request, received)
        except ProtocolError as error:
            self._refuse(caller, error)
            return
        except TcpcpError as error:
            failure = failure_of(error)
        except Exception as error:
            traceback.print_exc()
            failure = failure_of(HelperError(f"{request.operation.name}: {type(error).__name__}: {error}"))
        self._say(caller, failure, reply)
        descriptors.close(reply)

    def _say(self, caller: Caller, failure: Failure | None, with_it: Sequence[int] = ()) -> None:
        if not _reply(caller.connection, failure, with_it):
            self._drop(caller, orderly=False, unread=True)

    def _refuse(self, caller: Caller, error: Exception) -> None:
        """What came cannot be understood; perhaps its sender wants to know why."""
        _reply(caller.connection, failure_of(ProtocolError(str(error))))
        self._drop(caller, orderly=False)

    def _drop(self, caller: Caller, *, orderly: bool, unread: bool = False) -> None:
        self._service.leave(caller, orderly=orderly, unread=unread)
        if orderly:
            _reply(caller.connection, None)
        self._poll.unregister(caller.connection)
        del self._callers[caller.connection.fileno()]
        caller.connection.close()


def _reply(connection: socket.socket, failure: Failure | None, with_it: Sequence[int] = ()) -> bool:
    """Whether it could be sent; nobody is waited for."""
    try:
        descriptors.send(connection, protocol.pack_reply(failure), with_it, wait=False)
    except OSError:
        return False
    return True


def _wake_on_end() -> socket.socket:
    """A socket that can be read from when SIGTERM or SIGINT has come."""
    woken, waking = socket.socketpair()
    waking.setblocking(False)
    signal.set_wakeup_fd(waking.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return woken


def main(argv: Sequence[str]) -> int:
    """Be a worker.

    :param argv: descriptor of the server's socket, the user's number, the bounds.
    """
    number, uid, *bounds = map(int, argv)
    os.set_inheritable(number, False)
    worker = Worker(socket.socket(fileno=number), uid, room.make(Bounds(*bounds)))
    with contextlib.suppress(TcpcpError):
        beforehand.load()  # without a filter: every packet of the host would pass it, also while all is idle
    worker.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
