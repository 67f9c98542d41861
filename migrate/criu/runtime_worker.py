"""CRIU as a container's runtime has started it: the runtime asks, we have the last word, and both hear each stage.

To everybody else it is a :class:`migrate.criu.worker.Worker`. Whatever ends the talk, our end too, CRIU undoes what
it built and the runtime says that its command has failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any

from migrate import limits
from migrate.criu import breakpoints
from migrate.criu.asked import LOOK, Asking
from migrate.criu.begun_note import BegunNote
from migrate.criu.relayed import Relayed
from migrate.criu.worker import Options, Stage, Worker
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
        try:
            held = asking.request(rpc.RESTORE)
        except BaseException:
            asking.close(grace_s=limits.CRIU_GIVE_UP_S)
            raise
        self._theirs = options_of(held.request)
        self.namespace_init = 0
        try:
            self._identity = identity.identity(held.pid)
            self._relayed = Relayed(held.criu, held.runtime, held.pid)
            self._socket, self._ended = self._relayed.socket, self._relayed.ended
            self._event = breakpoints.ready()
        except (OSError, ProcessLookupError) as error:
            held.close()
            asking.close(grace_s=limits.CRIU_GIVE_UP_S)
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
                self._relayed.whole |= stage.name == "pre-resume"
                yield stage
        finally:
            stages.close()

    def problems(self) -> list[str]:
        """That the runtime does not know of the container that it has restored."""
        if not self._asking.ended(limits.CRIU_CLOSE_S):
            return [f"{self._asking.name} has not come to an end since the container runs"]
        if status := self.process.wait():
            said = self._asking.told()
            return [
                f"{self._asking.name} ended with status {status} although the container runs, and may not know"
                f" of it{self._asking.lost}{said and f': {said}'}"
            ]
        return []

    def check(self) -> None:
        """As :meth:`Worker.check`; that the runtime waits, too."""
        if self.process.poll() is not None or not identity.alive(self._identity):
            raise self._died("restore")

    def keep(self) -> None:
        """See :meth:`Worker.keep`: the runtime, too, hears how it ended."""
        self._relayed.keep()

    def close(self, *, grace_s: float = limits.CRIU_CLOSE_S) -> None:
        """As :meth:`Worker.close`, and reap the runtime. What was kept, and is whole, is not given up."""
        self._relayed.hang_up()
        if not identity.wait_gone(self._identity, time.monotonic() + grace_s):
            identity.end([self._identity])
        self._relayed.close()
        self._asking.close(grace_s=max(grace_s, limits.CRIU_GIVE_UP_S))
        self._begun.remove()
        self._forget_end()

    def _ended_in(self, what: str, why: str | None = "") -> CriuError:
        return self._died(what)

    def _died(self, what: str) -> CriuError:
        """Which of the two has ended or given up, and what the runtime said."""
        said = self._asking.told()
        why = said and f": {said}"
        if stage := self._relayed.gave_up():
            return CriuError(f"{self._asking.name} gave up at {stage}{why}", hint=LOOK)
        gone = not identity.alive(self._identity)
        who = f"CRIU (process {self.pid})" if gone else self._asking.name
        hint = "Look for what ended it (the kernel's log says whether memory ran out), and try again."
        return CriuError(f"{who} ended in the middle ({what}){why}", hint=hint)
