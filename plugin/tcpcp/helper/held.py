"""The sockets that one user has got or created through the helper, and what he has released.

Both are bounded together: what was released is in the packet filter for another minute, without a socket.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tcpcp.endpoint import isolation
from tcpcp.errors import AlreadyGot, NotGot
from tcpcp.helper import sockets, telling
from tcpcp.helper.bounds import Bounds
from tcpcp.helper.policy import Rights
from tcpcp.helper.protocol import HelperError
from tcpcp.helper.sockets import Ends
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import Ici

Call = Callable[[Sequence[socket.socket]], None]


@dataclass(eq=False, slots=True)
class Caller:
    """One connection to the helper.

    :ivar rights: what the user may claim who made it.
    :ivar last_got: what its last request has got.
    """

    connection: socket.socket
    uid: int
    rights: Rights
    last_got: Sequence[Held] = ()


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
class Holding:
    """Those of one user, by cookie; and when, by time.monotonic(), what was released will be forgotten."""

    bounds: Bounds = Bounds()
    _held: dict[int, Held] = field(default_factory=dict)
    _silent: deque[float] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        """Each; they may be undone meanwhile."""
        return iter(list(self._held.values()))

    def find(self, socks: Sequence[socket.socket]) -> list[Held]:
        """What is held of *socks*, in the same order.

        :raises NotGot: one of them is not, or is there twice.
        """
        cookies = [sockets.cookie(sock) for sock in socks]
        if len(set(cookies)) < len(cookies):
            raise NotGot("one of the sockets is there twice")
        for sock, cookie in zip(socks, cookies, strict=True):
            if cookie not in self._held:
                raise NotGot(
                    f"{tcp_repair.describe(sock)}: was not got or created here by this user, or runs already"
                )
        return [self._held[cookie] for cookie in cookies]

    def check_new(self, socks: Sequence[socket.socket]) -> list[int]:
        """The cookies of *socks*, none of which is held, and for all of which there is room.

        :raises AlreadyGot, HelperError: it is not so.
        """
        cookies = [sockets.cookie(sock) for sock in socks]
        if len(set(cookies)) < len(cookies) or not self._held.keys().isdisjoint(cookies):
            raise AlreadyGot("one of the sockets is there twice, or has been got or created already")
        silent = self.silent()
        if len(self._held) + silent + len(cookies) > self.bounds.held:
            raise HelperError(
                f"{len(self._held)} sockets are held for this user and {silent} were released in the last "
                f"{isolation.TIMEOUT_S} s, together the limit is {self.bounds.held}"
            )
        return cookies

    def silent(self) -> int:
        """How many were released, or ended otherwise, and are still in the packet filter."""
        now = time.monotonic()
        while self._silent and self._silent[0] <= now:
            self._silent.popleft()
        return len(self._silent)

    def silent_s(self) -> float:
        """Until there is none of those any more, in seconds; 0: there is none."""
        return self._silent[-1] - time.monotonic() if self.silent() else 0.0

    def enter(
        self,
        caller: Caller,
        socks: Sequence[socket.socket],
        cookies: Sequence[int],
        ends: Sequence[Ends],
        *,
        created: bool,
    ) -> list[Held]:
        """Hold *socks* from here on; their cookies are from :meth:`check_new`."""
        held = [
            Held(sock, cookie, caller, created, its)
            for sock, cookie, its in zip(socks, cookies, ends, strict=True)
        ]
        self._held.update({one.cookie: one for one in held})
        return held

    def forget_running(self, one: Held) -> None:
        """What is not in repair mode any more, or closed, is not held."""
        if one.sock.fileno() < 0 or not sockets.in_repair(one.sock):
            self._forget(one)

    def undo(self, one: Held, call: Call) -> None:
        """Be rid of *one*, by *call* if that works; if not, its connection ends."""
        try:
            call([one.sock])
        except Exception as error:  # also one that is a fault here: there are others to be undone
            name = type(error).__name__
            telling.tell(f"user {one.caller.uid}: {one.ends[0]} - {one.ends[1]}: {name}: {error}")
        if one.sock.fileno() >= 0 and sockets.in_repair(one.sock):
            sockets.put_down(one.sock)
            one.sock.close()
        self._forget(one)

    def _forget(self, one: Held) -> None:
        """What is closed is in the filter without a socket from now on."""
        if self._held.pop(one.cookie, None) and one.sock.fileno() < 0:
            self._silent.append(time.monotonic() + isolation.TIMEOUT_S)
        one.sock.close()


def calm(held: Sequence[Held], icis: Sequence[Ici]) -> None:
    """All first, for until then their owner may do what he must not; then look whether he has."""
    for one, ici in zip(held, icis, strict=True):
        sockets.calm(one.sock, ici.options.get("SO_REUSEADDR", 0))
    for one in held:
        sockets.check_ends(one.sock, one.ends)
