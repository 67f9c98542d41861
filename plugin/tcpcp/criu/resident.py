"""The resident helper: answers CRIU's hooks, so that nothing has to be loaded while a tree is frozen.

``python -m tcpcp.criu.resident``; `migrate plugin install` makes a unit of it. Each request is done by a child,
which enters the tree's network namespace and ends there. Only root reaches the socket, and only root is answered.

It also watches what was begun: should CRIU end between its hooks, killed, with the tree still alive, the tree's
connections are let go. And it mutes new ports of bridges and new macvlans, see :mod:`tcpcp.criu.new_ports` and
:mod:`tcpcp.criu.new_macvlans`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from tcpcp import standard_streams
from tcpcp.criu import carried, hook, hooks, stages
from tcpcp.criu.hooks import Hook
from tcpcp.criu.muting import Muting
from tcpcp.criu.new_macvlans import NewMacvlans
from tcpcp.criu.new_ports import NewPorts
from tcpcp.criu.once import tell
from tcpcp.criu.spare import MOST_S, Spare
from tcpcp.errors import IsolationError, TcpcpError

_CREDENTIALS = struct.Struct("3i")
_BYTES = 8192
#: A request is at hand when its connection is; who connects and says nothing is not waited for.
_PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class _Locked:
    """A tree whose connections are isolated for a CRIU that is at work: pidfds, its number, its filters' name."""

    criu: int
    tree: int
    root: int
    name: str

    def close(self) -> None:
        os.close(self.criu)
        os.close(self.tree)


class Resident:
    """The server.

    :param listener: the socket that it is asked by.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._locked: dict[int, _Locked] = {}
        self._muting: dict[int, Muting] = {}
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel itself reaps
        stages.prepare()
        for kind in (NewPorts, NewMacvlans):
            try:
                one = kind()
            except (OSError, IsolationError) as error:
                tell(f"{kind.WHO} are not muted: {error}")
            else:
                self._muting[one.fileno()] = one
                self._poll.register(one, select.POLLIN)
        # What is loaded is never changed: children need not copy the pages that a collection would write to.
        gc.collect()
        gc.freeze()
        self._spare = Spare()

    def serve(self) -> NoReturn:
        """Answer until interrupted."""
        while True:
            wait_s = self._tick()
            for descriptor, _ in self._poll.poll(None if wait_s is None else 1000 * wait_s):
                if descriptor == self._listener.fileno():
                    self._accept()
                elif locked := self._locked.get(descriptor):
                    self._criu_ended(locked)
                elif one := self._muting.get(descriptor):
                    self._mute(one, one.look)

    def _tick(self) -> float | None:
        """Seconds until the next one that is due; None: there is none."""
        due = [self._mute(one, one.tick) for one in list(self._muting.values())]
        return min((wait_s for wait_s in due if wait_s is not None), default=None)

    def _mute(self, one: Muting, work: Callable[[], float]) -> float | None:
        """What new interfaces need; if it fails once it is given up, and the kernel ends it."""
        try:
            return work()
        except (OSError, IsolationError) as error:
            tell(f"{one.WHO} are not muted any more: {error}")
            self._poll.unregister(one)
            del self._muting[one.fileno()]
            return None

    def close(self) -> None:
        """Mute nobody; what is isolated is let go by the hooks themselves."""
        self._spare.close()
        for one in self._muting.values():
            one.close()

    def _accept(self) -> None:
        asking, _ = self._listener.accept()
        with asking:
            try:
                asking.settimeout(_PATIENCE_S)
                self._answer(asking)
            except (OSError, ValueError, TcpcpError) as error:
                tell(f"a request: {error}")
        self._have_spare()

    def _have_spare(self) -> None:
        """For the next one, when nobody waits; without it that one is done as well, and takes longer."""
        if self._spare.used:
            try:
                self._spare = Spare()
            except OSError as error:
                tell(f"no child ahead: {error}")

    def _answer(self, asking: socket.socket) -> None:
        credentials = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        caller, user, _ = _CREDENTIALS.unpack(credentials)
        data = asking.recv(_BYTES)
        if not data:  # who only wanted to know whether we are here
            return
        stage, root, images = data.decode().split(" ", 2)
        if user != 0 or stage not in hooks.STAGES:
            raise ValueError(f"refused: {stage!r} of user {user}")
        if _has_gone(asking):  # it has waited for too long, and CRIU has heard that it failed
            tell(f"{stage}: nobody waits for it any more")
            return
        directory = os.open(images, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._do(Hook(stage, directory, int(root), caller, tell), asking)
        finally:
            os.close(directory)

    def _do(self, asked: Hook, asking: socket.socket) -> None:
        locked = _locked(asked) if asked.stage == "network-lock" else None
        may_go_on, told = self._run(asked), False
        try:
            asking.send(b"ok" if may_go_on else b"no")
            told = True
        finally:
            if locked is not None:
                self._watch(asked, locked, let_go=may_go_on and not told)

    def _run(self, asked: Hook) -> bool:
        try:
            return self._spare.run(asked)
        except OSError:  # somebody has ended it
            return _in_child(partial(hooks.run, asked))

    def _watch(self, asked: Hook, locked: _Locked, *, let_go: bool) -> None:
        """From here on, what is isolated is let go should CRIU end.

        :param let_go: at once: CRIU has not heard that it is isolated.
        """
        known = carried.read(asked.directory)
        if known is None:
            locked.close()
            return
        self._locked[locked.criu] = locked = dataclasses.replace(locked, name=known.name)
        self._poll.register(locked.criu, select.POLLIN)
        if let_go:
            self._criu_ended(locked)

    def _criu_ended(self, locked: _Locked) -> None:
        """A tree that lives on has its connections back, whatever became of CRIU."""
        self._poll.unregister(locked.criu)
        del self._locked[locked.criu]
        try:
            if not select.select([locked.tree], [], [], 0)[0]:
                _in_child(partial(_released, locked))
        except OSError as error:
            tell(f"what CRIU has left isolated stays so for {hooks.LOCK_S} s: {error}")
        finally:
            locked.close()


def _locked(asked: Hook) -> _Locked:
    """Who is at work, before anything is isolated. :raises OSError: it has ended."""
    criu = os.pidfd_open(hooks.criu_of(asked.caller) or asked.caller)
    try:
        return _Locked(criu, os.pidfd_open(asked.root), asked.root, "")
    except OSError:
        os.close(criu)
        raise


def _has_gone(asking: socket.socket) -> bool:
    """Whether nobody is at the other end."""
    poll = select.poll()
    poll.register(asking, 0)
    return bool(poll.poll(0))


def _released(locked: _Locked) -> bool:
    hooks.release(locked.root, locked.name)
    return True


def _in_child(work: Callable[[], bool]) -> bool:
    """Whether *work*, done by a child of this process, said so; nobody waits for its end.

    What it has taken out of the kernel's filter is freed while it ends, which takes longer than all it does
    (net/netfilter/nf_tables_api.c nft_rcv_nl_event()).
    """
    told, tell_it = os.pipe()
    if os.fork() == 0:
        signal.alarm(MOST_S)
        try:
            os.write(tell_it, b"yes" if work() else b"no")
        except BaseException as error:  # whatever it is, two processes must not go on from here
            with contextlib.suppress(OSError):
                tell(f"{type(error).__name__}: {error}")
        finally:
            os._exit(0)
    os.close(tell_it)
    try:
        return os.read(told, 8) == b"yes"
    finally:
        os.close(told)


def listen(path: str = hook.SOCKET) -> socket.socket:
    """The socket, in a directory that nobody but root enters.

    :raises OSError: it cannot be made; another helper has it, for one.
    """
    directory = Path(path).parent
    directory.mkdir(mode=0o700, exist_ok=True)
    directory.chmod(0o700)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        try:
            asking.connect(path)
        except OSError:
            Path(path).unlink(missing_ok=True)
        else:
            listener.close()
            raise OSError(f"{path}: another helper answers there")
    listener.bind(path)
    listener.listen(16)
    return listener


def main() -> int:
    """Run until SIGTERM; 1: it could not begin."""
    standard_streams.open_closed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        resident = Resident(listen())
    except (OSError, TcpcpError) as error:
        tell(str(error))
        return 1
    try:
        resident.serve()
    finally:
        resident.close()
        Path(hook.SOCKET).unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
