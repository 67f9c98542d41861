"""Between CRIU, the runtime that has started it and us: what CRIU says the runtime hears first, then we.

A runtime that does not hear how its restore ended takes it for failed, and kills what was restored. So the talk
must not end with us, once the tree is ours to run: a process of its own has it, which goes on without us when it
was told to keep the tree, and before that hangs up on both when we do.

Source: runc libcontainer/criu_linux.go criuSwrk(), restore_linux.go; criu/cr-service.c.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import time

from migrate import limits
from migrate.criu import worker

PROGRAM = ("-m", "migrate.criu.relay")
#: What the user (:mod:`migrate.criu.relayed`) may say beside CRIU's messages, none of which is as short.
KEEP, STOP = b"keep", b"stop"
_MESSAGE_BYTES = 1 << 16


class _HungUp(Exception):
    """Somebody has, and so do we."""


class Relay:
    """The three talks, and whether the tree is kept although the user is gone.

    :param ended: a descriptor that can be read when CRIU has ended.
    """

    def __init__(self, user: socket.socket, criu: socket.socket, runtime: socket.socket, ended: int) -> None:
        self._user, self._criu, self._runtime, self._ended = user, criu, runtime, ended
        self._kept = self._alone = False

    def run(self) -> str:
        """Pass on until CRIU has said its last word; the stage at which the runtime gave up, or ""."""
        from pycriu import rpc_pb2 as rpc

        yes = rpc.criu_req(type=rpc.NOTIFY, notify_success=True).SerializeToString()
        with contextlib.suppress(_HungUp, OSError):
            answer = self._said_by_user() or b""
            while answer:
                self._criu.send(answer)
                said = self._received(self._criu)
                reply = worker.parsed(said)
                if reply is None or reply.type != rpc.NOTIFY:
                    return self._end(said)
                if not self._heard(said):
                    return str(reply.notify.script)
                self._tell(said)
                answer = self._said_by_user() or (yes if self._kept else b"")
        return ""

    def _end(self, said: bytes) -> str:
        """CRIU's last word: for both."""
        with contextlib.suppress(OSError):
            self._runtime.send(said)
        self._tell(said)
        return ""

    def _heard(self, said: bytes) -> bool:
        """Whether the runtime has heard of a stage, done its part, and wants to go on."""
        try:
            self._runtime.send(said)
            request = worker.parsed_request(self._received(self._runtime))
        except OSError:
            request = None
        return bool(request is not None and request.notify_success)

    def _tell(self, said: bytes) -> None:
        if not self._alone:
            try:
                self._user.send(said)
            except OSError:
                self._left()

    def _said_by_user(self) -> bytes | None:
        """What the user says next to CRIU; None: it is gone, the tree is kept. :raises _HungUp: it is not."""
        while not self._alone:
            try:
                said = self._user.recv(_MESSAGE_BYTES)
            except OSError:
                said = b""
            if said == KEEP:
                self._kept = True
            elif said == STOP:
                raise _HungUp
            elif said:
                return said
            else:
                self._left()
        return None

    def _left(self) -> None:
        """The user is gone."""
        self._alone = True
        if not self._kept:
            raise _HungUp

    def _received(self, source: socket.socket) -> bytes:
        """What CRIU or the runtime says; while it says nothing the user may leave, or CRIU end.

        :raises _HungUp: no more will come, or not in time when nobody else would notice.
        """
        deadline = time.monotonic() + limits.CRIU_END_S
        while True:
            watched = [source.fileno(), self._ended, *([] if self._alone else [self._user.fileno()])]
            ready = _readable(watched)
            if source.fileno() in ready:
                if said := source.recv(_MESSAGE_BYTES):
                    return said
                raise _HungUp
            if self._ended in ready or (self._alone and time.monotonic() > deadline):
                raise _HungUp
            if not self._alone and self._user.fileno() in ready:
                self._interrupted()

    def _interrupted(self) -> None:
        """The user, who waits for an answer, says something: it gives up, or is gone."""
        try:
            said = self._user.recv(_MESSAGE_BYTES)
        except OSError:
            said = b""
        if said:
            raise _HungUp
        self._left()


def _readable(descriptors: list[int]) -> set[int]:
    """Those that can be read, or whose other end is gone, within a moment."""
    poll = select.poll()
    for one in descriptors:
        poll.register(one, select.POLLIN)
    return {one for one, _ in poll.poll(1000 * limits.HEED_S)}


def main(words: list[str]) -> int:
    """The words are numbers of descriptors: what :class:`Relay` is made of.

    On standard output it says at which stage the runtime gave up, or nothing.
    """
    user, criu, runtime = (socket.socket(fileno=int(one)) for one in words[:3])
    with user, criu, runtime:
        print(Relay(user, criu, runtime, int(words[3])).run(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
