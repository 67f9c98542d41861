"""CRIU as a container's runtime has started it: the runtime asks, we have the last word, and both hear each stage.

To everybody else it is a :class:`migrate.criu.worker.Worker`. Whatever ends the talk, our end too, CRIU undoes what
it built and the runtime says that its command has failed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from typing import Any

from migrate import limits
from migrate.criu import breakpoints
from migrate.criu.asked import LOOK, MESSAGE_BYTES, Asking
from migrate.criu.begun_note import BegunNote
from migrate.criu.worker import Options, Stage, Worker, parsed_request
from migrate.errors import CriuError
from migrate.processes import identity
from migrate.watch import nothing

#: What a runtime asks for that is our business: where the images are, what is told of it, and how the network is
#: locked, the tree frozen. Descriptors are numbers in the runtime's own table, which is not who asks CRIU now.
_OURS = (
    "images_dir_fd", "images_dir", "work_dir_fd", "parent_img", "log_file", "log_level", "log_to_stderr", "pid",
    "leave_running", "network_lock", "tcp_established", "tcp_close", "freeze_cgroup", "status_fd", "ps",
    "track_mem", "auto_dedup", "lazy_pages", "pre_dump_mode", "notify_scripts", "manage_cgroups",
    "manage_cgroups_mode", "exec_cmd", "shell_job", "timeout", "ghost_limit", "config_file", "daemon_mode",
    "file_locks", "link_remap",
)  # fmt: skip


def options_of(request: Any) -> Any:
    """What of the criu_opts of a runtime's *request* is about its container; the rest is ours to say."""
    theirs = type(request.opts)()
    theirs.CopyFrom(request.opts)
    fields = {one.name for one in theirs.DESCRIPTOR.fields}
    for name in fields.intersection(_OURS):
        theirs.ClearField(name)
    return theirs


class RuntimeWorker(Worker):
    """The CRIU of a command that restores a container, held at its request.

    :param asking: the command.
    :raises CriuError: it asks for nothing.
    """

    def __init__(self, asking: Asking, *, heed: Callable[[], None] = nothing) -> None:
        from pycriu import rpc_pb2 as rpc

        self.role, self.heed = "destination", heed
        self._asking, self.process, self._begun = asking, asking.process, BegunNote()
        self._event = self._ended = -1
        try:
            held = asking.request(rpc.RESTORE)
        except BaseException:
            asking.close(grace_s=limits.CRIU_GIVE_UP_S)
            raise
        self._socket, self._runtime = held.criu, held.runtime
        self._theirs = options_of(held.request)
        self.namespace_init = 0
        try:
            self._identity = identity.identity(held.pid)
            self._ended, self._event = os.pidfd_open(held.pid), breakpoints.ready()
        except (OSError, ProcessLookupError) as error:
            self.close(grace_s=limits.CRIU_GIVE_UP_S)
            raise CriuError("CRIU ended before it was needed", hint=LOOK) from error

    @property
    def own_numbers(self) -> bool:
        """A container has a PID namespace of its own, whose init is its first process."""
        return True

    @property
    def pid(self) -> int:
        """CRIU's process."""
        return self._identity[0]

    @property
    def start(self) -> int:
        """When it started."""
        return self._identity[1]

    def restore(self, options: Options) -> Generator[Stage, bool | None, None]:
        """As :meth:`Worker.restore`, of what the runtime has asked for."""
        from pycriu import rpc_pb2 as rpc

        request = rpc.criu_req(type=rpc.RESTORE)
        request.opts.CopyFrom(self._theirs)
        self._fill(request.opts, options)
        request.opts.tcp_established = True
        return self._noting(self._run(request, options))

    def _noting(self, stages: Generator[Stage, bool | None, None]) -> Generator[Stage, bool | None, None]:
        """Note which process became the container's init, as this host numbers it."""
        try:
            for stage in stages:
                if stage.name == "post-restore" and stage.pid:
                    self.namespace_init = stage.pid
                yield stage
        finally:
            stages.close()

    def problems(self) -> list[str]:
        """That the runtime does not know of the container that it has restored."""
        if not self._asking.ended(limits.CRIU_CLOSE_S):
            return [f"{self._asking.name} has not come to an end since the container runs"]
        if status := self.process.wait():
            return [
                f"{self._asking.name} ended with status {status} although the container runs: {self._asking.told()}"
            ]
        return []

    def check(self) -> None:
        """As :meth:`Worker.check`; that the runtime waits, too."""
        if self.process.poll() is not None or not identity.alive(self._identity):
            raise self._died("restore")

    def close(self, *, grace_s: float = limits.CRIU_CLOSE_S) -> None:
        """As :meth:`Worker.close`, and reap the runtime."""
        self._socket.close()
        self._runtime.close()
        if not identity.wait_gone(self._identity, time.monotonic() + grace_s):
            identity.end([self._identity])
        self._asking.close(grace_s=max(grace_s, limits.CRIU_GIVE_UP_S))
        self._begun.remove()
        self._forget_end()

    def _ask(self, request: Any, deadline: float, what: str) -> Any:
        """Ask CRIU, and have the runtime hear its answer: of a stage it does its part before anybody else does."""
        from pycriu import rpc_pb2 as rpc

        reply = super()._ask(request, deadline, what)
        try:
            self._runtime.send(reply.SerializeToString())
            if reply.type != rpc.NOTIFY:
                return reply
            self._wait_for(self._runtime.fileno(), deadline, what)
            said = self._runtime.recv(MESSAGE_BYTES)
        except OSError as error:
            raise CriuError(f"{self._asking.name} is gone: {error.strerror}", hint=LOOK) from error
        heard = parsed_request(said) if said else None
        if heard is None or not heard.notify_success:
            why = self._asking.told()
            raise CriuError(
                f"{self._asking.name} gave up at {reply.notify.script}" + (f": {why}" if why else ""),
                hint=LOOK,
            )
        return reply

    def _died(self, what: str) -> CriuError:
        """Which of the two has ended, and what the runtime said."""
        gone = not identity.alive(self._identity)
        who = f"CRIU (process {self.pid})" if gone else self._asking.name
        why = self._asking.told()
        hint = "Look for what ended it (the kernel's log says whether memory ran out), and try again."
        return CriuError(f"{who} ended in the middle ({what})" + (f": {why}" if why else ""), hint=hint)
