"""What is done for one user: his requests, and the sockets that he has got or created and not finished with.

The rules that make it safe to ask, for whom and about what, are in docs/helper.md.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import tcpcp
from tcpcp.endpoint import calls, inspection
from tcpcp.errors import AlreadyGot, NotGot, PermissionDenied, Unsupported
from tcpcp.helper import descriptors, policy, sockets, surroundings
from tcpcp.helper.policy import Rights
from tcpcp.helper.protocol import HelperError, Operation, ProtocolError, Request
from tcpcp.helper.sockets import Ends
from tcpcp.kernel import tcp_repair
from tcpcp.record import codec
from tcpcp.record.ici import Endpoint, Ici

_Call = Callable[[Sequence[socket.socket]], None]
_FINISHING: dict[Operation, _Call] = {
    # The firewall's word on what a user sends is not taken from it.
    Operation.ACTIVATE: partial(calls.activate_many, introduce=False),
    Operation.RELEASE: calls.release_many,
    Operation.RESUME: calls.resume_many,
    Operation.RENEW: calls.renew_many,
}
#: What an end that is near still allows.
_WHILE_ENDING = frozenset({Operation.ACTIVATE, Operation.RELEASE, Operation.RESUME})
_SHOWN = 3


class Bounds(NamedTuple):
    """How much one user may have at a time.

    :ivar connections: to the helper.
    :ivar held: sockets got or created, and not finished with.
    :ivar image_bytes: of the ICIs of one request.
    """

    connections: int = 32
    held: int = 4096
    image_bytes: int = 64 << 20


@dataclass(eq=False, slots=True)
class Caller:
    """One connection to the helper.

    :ivar rights: what the user may claim who made it.
    """

    connection: socket.socket
    uid: int
    rights: Rights


@dataclass(eq=False, slots=True)
class Held:
    """One socket in repair mode, of which we keep a descriptor.

    :ivar caller: through whom it was got or created.
    :ivar ends: what it must be when it is finished with.
    """

    sock: socket.socket
    cookie: int
    caller: Caller
    created: bool
    ends: Ends


@dataclass(eq=False)
class Service:
    """Everything for one user.

    :ivar ending: nothing new is begun.
    :ivar held: by cookie.
    """

    bounds: Bounds = Bounds()
    ending: bool = False
    held: dict[int, Held] = field(default_factory=dict)

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
        _note(caller, operation.name, [_described(sock) for sock in socks])
        if operation is Operation.GET:
            return [self._get(caller, socks)]
        if operation is Operation.CREATE:
            self._create(caller, images[0], socks)
        else:
            self._finish(socks, _FINISHING[operation])
        return []

    def leave(self, caller: Caller, *, orderly: bool) -> None:
        """*caller* has gone: undo what was begun through it and not finished.

        :param orderly: it has said so: what was got runs again. Else its program has died, perhaps after it
            gave an ICI away: what was got ends silently, for two endpoints of one connection are worse than
            none. What was created and has not run ends silently either way.
        """
        for one in [one for one in self.held.values() if one.caller is caller]:
            resume = orderly and not one.created
            self._undo(one, calls.resume_many if resume else calls.release_many)

    def end(self) -> None:
        """Undo everything, as if every caller had left in order."""
        for one in list(self.held.values()):
            self._undo(one, calls.release_many if one.created else calls.resume_many)

    def _get(self, caller: Caller, socks: Sequence[socket.socket]) -> int:
        """Get *socks*; the image of their ICIs."""
        cookies = self._check_new(socks)
        for sock in socks:
            inspection.inspect(sock)
        self._check_size(socks)
        ends = [inspection.ends(sock)[:2] for sock in socks]
        try:
            icis = tcpcp.get_many(socks)
        except BaseException:
            _put_down_changed(socks, ends)
            raise
        held = self._enter(caller, socks, cookies, ends, created=False)
        try:
            _calm(held, icis)
            return descriptors.seal(b"".join(codec.dumps(ici) for ici in icis))
        except BaseException:
            for one in held:
                self._undo(one, calls.resume_many)
            raise

    def _create(self, caller: Caller, image: int, socks: Sequence[socket.socket]) -> None:
        icis = list(codec.loads_many(descriptors.read_sealed(image, self.bounds.image_bytes)))
        if len(icis) != len(socks):
            raise ProtocolError(f"{len(icis)} ICIs for {len(socks)} sockets")
        _note(caller, "wants", [str(ici) for ici in icis])
        cookies = self._check_new(socks)
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
        held = self._enter(caller, socks, cookies, ends, created=True)
        try:
            _calm(held, icis)
            _check_taken(caller, icis)  # again, for somebody may have come meanwhile
        except BaseException:
            for one in held:
                self._undo(one, calls.release_many)
            raise

    def _finish(self, socks: Sequence[socket.socket], call: _Call) -> None:
        """Let *call* do what it does with what was handed in, which must be what is held."""
        held = self._find(socks)
        for one in held:
            try:
                sockets.check_ends(one.sock, one.ends)
            except Unsupported:
                self._undo(one, calls.resume_many)
                raise
        try:
            call([one.sock for one in held])
        finally:
            for one in held:
                self._forget_running(one)

    def _find(self, socks: Sequence[socket.socket]) -> list[Held]:
        cookies = [sockets.cookie(sock) for sock in socks]
        if len(set(cookies)) < len(cookies):
            raise NotGot("one of the sockets is there twice")
        for sock, cookie in zip(socks, cookies, strict=True):
            if cookie not in self.held:
                raise NotGot(f"{_described(sock)}: was not got or created here by this user, or runs already")
        return [self.held[cookie] for cookie in cookies]

    def _check_new(self, socks: Sequence[socket.socket]) -> list[int]:
        """The cookies of *socks*, none of which is held, and for all of which there is room."""
        cookies = [sockets.cookie(sock) for sock in socks]
        if len(set(cookies)) < len(cookies) or not self.held.keys().isdisjoint(cookies):
            raise AlreadyGot("one of the sockets is there twice, or has been got or created already")
        if len(self.held) + len(cookies) > self.bounds.held:
            raise HelperError(
                f"{len(self.held)} sockets are held for this user, the limit is {self.bounds.held}"
            )
        return cookies

    def _check_size(self, socks: Sequence[socket.socket]) -> None:
        size = sum(map(calls.max_size, socks))
        if size > self.bounds.image_bytes:
            raise HelperError(f"ICIs of {size} bytes; the helper passes {self.bounds.image_bytes} at a time")

    def _enter(
        self,
        caller: Caller,
        socks: Sequence[socket.socket],
        cookies: Sequence[int],
        ends: Sequence[Ends],
        *,
        created: bool,
    ) -> list[Held]:
        held = [
            Held(sock, cookie, caller, created, its)
            for sock, cookie, its in zip(socks, cookies, ends, strict=True)
        ]
        self.held.update({one.cookie: one for one in held})
        return held

    def _forget_running(self, one: Held) -> None:
        """What is not in repair mode any more, or closed, is not held."""
        if one.sock.fileno() < 0 or not sockets.in_repair(one.sock):
            self.held.pop(one.cookie, None)
            one.sock.close()

    def _undo(self, one: Held, call: _Call) -> None:
        """Be rid of *one*, by *call* if that works; if not, its connection ends."""
        try:
            call([one.sock])
        except Exception as error:  # also one that is a fault here: there are others to be undone
            name = type(error).__name__
            _log(f"user {one.caller.uid}: {one.ends[0]} - {one.ends[1]}: {name}: {error}")
        if one.sock.fileno() >= 0 and sockets.in_repair(one.sock):
            sockets.put_down(one.sock)
        self.held.pop(one.cookie, None)
        one.sock.close()


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


def _calm(held: Sequence[Held], icis: Sequence[Ici]) -> None:
    """All first, for until then their owner may do what he must not; then look whether he has."""
    for one, ici in zip(held, icis, strict=True):
        sockets.calm(one.sock, ici.options.get("SO_REUSEADDR", 0))
    for one in held:
        sockets.check_ends(one.sock, one.ends)


def _put_down_changed(socks: Iterable[socket.socket], ends: Iterable[Ends]) -> None:
    """After a get that failed: those that were made something else while they were in repair mode."""
    for sock, its in zip(socks, ends, strict=True):
        try:
            sockets.check_ends(sock, its)
        except Unsupported as error:
            _log(str(error))


def _built_ends(ici: Ici, sock: socket.socket) -> Ends:
    """What a socket built from *ici* must have; with port 0 the kernel has chosen one."""
    port = ici.local.port or inspection.local_end(sock).port
    return Endpoint(ici.local.ip, port), ici.peer


def _check_claims(caller: Caller, icis: Sequence[Ici]) -> None:
    limits = surroundings.limits()
    found = [f"{ici}: {one}" for ici in icis for one in policy.problems(ici, caller.rights, limits)]
    if found:
        raise PermissionDenied(f"user {caller.uid} may not have {'; '.join(found[:_SHOWN])}")
    _check_taken(caller, icis)


def _check_taken(caller: Caller, icis: Sequence[Ici]) -> None:
    if found := surroundings.taken(icis, caller.uid, caller.rights):
        raise PermissionDenied("; ".join(found[:_SHOWN]))


def _described(sock: socket.socket) -> str:
    return tcp_repair.describe(sock)


def _note(caller: Caller, what: str, names: Sequence[str]) -> None:
    """For the journal: what a user has done in the name of which connection."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    _log(f"user {caller.uid}: {what} {', '.join(names[:_SHOWN])}{more}")


def _log(text: str) -> None:
    print(f"tcpcp-helper: {text}", file=sys.stderr, flush=True)
