"""CRIU on the destination, which waits for the images: started by us, or by the runtime that restores a container.

It is started early. A runtime reads the bundle of its container, so its command is started when that has arrived.
"""

from __future__ import annotations

from migrate import limits
from migrate.criu.runtime_worker import RuntimeWorker
from migrate.criu.worker import Worker
from migrate.destination.errand import Errand
from migrate.destination.trail import Trail
from migrate.errors import ProtocolError, Taken
from migrate.pb import session_pb2 as pb
from migrate.processes import oci
from migrate.recovery import entries
from migrate.runtime.oci import restoring


class Waiting:
    """That of one migration, which has not been started."""

    def __init__(self, errand: Errand, request: pb.Prepare, trail: Trail) -> None:
        self._errand, self._request, self._trail = errand, request, trail
        self._started: list[Worker] = []

    def begin(self) -> None:
        """Start it, if that has not been done.

        :raises CriuError: it cannot be. :raises Taken: the runtime has a container of that name, since the check.
        """
        if not self._started:
            worker = self._of_runtime() if self._errand.container.name else self._own()
            # What it has built is killed anyway.
            self._trail.first.callback(worker.close, grace_s=limits.CRIU_GIVE_UP_S)
            self._started.append(worker)

    @property
    def worker(self) -> Worker:
        """It, once it has been started. :raises ProtocolError: it has not, for what it needs was not sent."""
        if not self._started:
            raise ProtocolError("received a Restore before the files of the container")
        return self._started[0]

    def check(self) -> None:
        """Return while it lives, or has not been started. :raises CriuError: it has ended."""
        for worker in self._started:
            worker.check()

    def _own(self) -> Worker:
        request = self._request
        return Worker(
            role="destination",
            avoid_pids=[*request.pids, *request.tids] if request.new_pid_namespace else None,
            mark=self._errand.mark,
            personality=request.personality,
            heed=self._errand.called_off,
        )

    def _of_runtime(self) -> Worker:
        said = self._errand.container
        if oci.home(said.runtime, said.name).exists():
            hint = f"Remove it there, or rename it: {said.runtime} delete {said.name}"
            raise Taken(f"{said.runtime} has a container {said.name} since the check", hint=hint)
        self._trail.journal.did(entries.Arriving(said.runtime, said.name, said.bundle))
        directory = self._trail.journal.directory / "runtime"
        directory.mkdir(mode=0o700)
        asking = restoring(
            said.runtime,
            said.name,
            said.bundle,
            said.descriptors,
            directory,
            environment=dict([self._errand.mark.split("=", 1)]),
            personality=self._request.personality,
            heed=self._errand.called_off,
        )
        return RuntimeWorker(asking, heed=self._errand.called_off)
