"""What is done for one user: his requests.

The rules that make it safe to ask, for whom and about what, are in docs/helper.md.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import tcpcp
from tcpcp.endpoint import calls, inspection, socket_ends
from tcpcp.errors import PermissionDenied, Unsupported
from tcpcp.helper import descriptors, policy, sockets, surroundings, telling
from tcpcp.helper.held import Call, Caller, Holding, calm
from tcpcp.helper.protocol import HelperError, Operation, ProtocolError, Request
from tcpcp.helper.sockets import Ends
from tcpcp.kernel import tcp_repair
from tcpcp.record import codec
from tcpcp.record.ici import Endpoint, Ici

_FINISHING: dict[Operation, Call] = {
    # The firewall's word on what a user sends is not taken from it.
    Operation.ACTIVATE: partial(calls.activate_many, introduce=False),
    Operation.RELEASE: calls.release_many,
    Operation.RESUME: calls.resume_many,
    Operation.RENEW: calls.renew_many,
}
#: What an end that is near still allows.
_WHILE_ENDING = frozenset({Operation.ACTIVATE, Operation.RELEASE, Operation.RESUME})


@dataclass(eq=False)
class Service:
    """Everything for one user.

    :ivar ending: nothing new is begun.
    """

    held: Holding
    ending: bool = False

    def answer(self, caller: Caller, request: Request, received: Sequence[int]) -> list[int]:
        """Do what is asked; all of it or, after an error of get or create, nothing.

        :param received: descriptors that came with it; they are ours from here on.
        :return: descriptors for the reply, which are the caller's to close.
        :raises ProtocolError: what came does not fit; nothing was tried.
        :raises TcpcpError: for the user.
        """
        if len(received) != request.descriptors:
            descriptors.close(received)
            raise ProtocolError(f"{len(received)} descriptors instead of {request.descriptors}")
        images = received[: len(received) - request.count]
        socks: list[socket.socket] = []
        kept = False
        try:
            socks = _adopt(received[len(images) :])
            reply = self._do(caller, request.operation, socks, images)
            kept = request.operation in (Operation.GET, Operation.CREATE)
            return reply
        finally:
            descriptors.close(images)
            for sock in [] if kept else socks:
                sock.close()

    def _do(
        self, caller: Caller, operation: Operation, socks: Sequence[socket.socket], images: Sequence[int]
    ) -> list[int]:
        if self.ending and operation not in _WHILE_ENDING:
            raise HelperError("the helper is about to end: it begins nothing new")
        caller.last_got = ()
        telling.note(caller.uid, operation.name, [tcp_repair.describe(sock) for sock in socks])
        if operation is Operation.GET:
            return [self._get(caller, socks)]
        if operation is Operation.CREATE:
            self._create(caller, images[0], socks)
        else:
            self._finish(socks, _FINISHING[operation])
        return []

    def leave(self, caller: Caller, *, orderly: bool, unread: bool) -> None:
        """*caller* has gone: undo what was begun through it and not finished.

        :param orderly: it has said so: what was got runs again. Else its program has died, perhaps after it
            gave an ICI away: what was got ends silently, for two endpoints of one connection are worse than
            none. What was created and has not run ends silently either way.
        :param unread: nobody has read the last reply: what its request has got runs again, for nobody has its ICI.
        """
        for one in [one for one in self.held if one.caller is caller]:
            resume = not one.created and (orderly or (unread and one in caller.last_got))
            self.held.undo(one, calls.resume_many if resume else calls.release_many)

    def end(self) -> None:
        """Undo everything, as if every caller had left in order."""
        for one in self.held:
            self.held.undo(one, calls.release_many if one.created else calls.resume_many)

    def _get(self, caller: Caller, socks: Sequence[socket.socket]) -> int:
        """Get *socks*; the image of their ICIs."""
        cookies = self.held.check_new(socks)
        for sock in socks:
            inspection.inspect(sock)
        self._check_size(socks)
        ends = [socket_ends.ends(sock)[:2] for sock in socks]
        try:
            icis = tcpcp.get_many(socks)
        except BaseException:
            _put_down_changed(socks, ends)
            raise
        held = self.held.enter(caller, socks, cookies, ends, created=False)
        try:
            calm(held, icis)
            caller.last_got = held
            return descriptors.seal(b"".join(codec.dumps(ici) for ici in icis))
        except BaseException:
            for one in held:
                self.held.undo(one, calls.resume_many)
            raise

    def _create(self, caller: Caller, image: int, socks: Sequence[socket.socket]) -> None:
        icis = list(codec.loads_many(descriptors.read_sealed(image, self.held.bounds.image_bytes)))
        if len(icis) != len(socks):
            raise ProtocolError(f"{len(icis)} ICIs for {len(socks)} sockets")
        telling.note(caller.uid, "wants", [str(ici) for ici in icis])
        cookies = self.held.check_new(socks)
        for sock in socks:
            sockets.check_fresh(sock)
        _check_claims(caller, icis)
        try:
            tcpcp.create_many(icis, socks=socks)
        except BaseException:
            for sock in filter(sockets.in_repair, socks):
                sockets.put_down(sock)
            raise
        ends = [_built_ends(ici, sock) for ici, sock in zip(icis, socks, strict=True)]
        held = self.held.enter(caller, socks, cookies, ends, created=True)
        try:
            calm(held, icis)
            _check_taken(caller, icis)  # again, for somebody may have come meanwhile
        except BaseException:
            for one in held:
                self.held.undo(one, calls.release_many)
            raise

    def _finish(self, socks: Sequence[socket.socket], call: Call) -> None:
        """Let *call* do what it does with what was handed in, which must be what is held."""
        held = self.held.find(socks)
        for one in held:
            try:
                sockets.check_ends(one.sock, one.ends)
            except Unsupported:
                self.held.undo(one, calls.resume_many)
                raise
        try:
            call([one.sock for one in held])
        finally:
            for one in held:
                self.held.forget_running(one)

    def _check_size(self, socks: Sequence[socket.socket]) -> None:
        size = sum(map(calls.max_size, socks))
        if size > self.held.bounds.image_bytes:
            raise HelperError(
                f"ICIs of {size} bytes; the helper passes {self.held.bounds.image_bytes} at a time"
            )


def _adopt(numbers: Sequence[int]) -> list[socket.socket]:
    """Each descriptor as a socket; if one is none, all are closed."""
    socks: list[socket.socket] = []
    try:
        for number in numbers:
            socks.append(sockets.adopt(number))
    except BaseException:
        for sock in socks:
            sock.close()
        descriptors.close(numbers[len(socks) :])
        raise
    return socks


def _put_down_changed(socks: Iterable[socket.socket], ends: Iterable[Ends]) -> None:
    """After a get that failed: those that were made something else while they were in repair mode."""
    for sock, its in zip(socks, ends, strict=True):
        try:
            sockets.check_ends(sock, its)
        except Unsupported as error:
            telling.tell(str(error))


def _built_ends(ici: Ici, sock: socket.socket) -> Ends:
    """What a socket built from *ici* must have; with port 0 the kernel has chosen one."""
    port = ici.local.port or socket_ends.local_end(sock).port
    return Endpoint(ici.local.ip, port), ici.peer


def _check_claims(caller: Caller, icis: Sequence[Ici]) -> None:
    limits = surroundings.limits()
    found = [f"{ici}: {one}" for ici in icis for one in policy.problems(ici, caller.rights, limits)]
    if found:
        raise PermissionDenied(f"user {caller.uid} may not have {'; '.join(found[: telling.SHOWN])}")
    _check_taken(caller, icis)


def _check_taken(caller: Caller, icis: Sequence[Ici]) -> None:
    if found := surroundings.taken(icis, caller.uid, caller.rights):
        raise PermissionDenied("; ".join(found[: telling.SHOWN]))
