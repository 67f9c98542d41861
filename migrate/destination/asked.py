"""The first states of the destination: asked, and begun to make ready."""

from __future__ import annotations

from migrate import limits, runtime
from migrate.criu.worker import Worker
from migrate.destination.errand import Errand
from migrate.destination.gate import Gate
from migrate.destination.incoming import Incoming
from migrate.destination.prepared import Prepared
from migrate.destination.stage import Ready, Stage, Undoable
from migrate.destination.trail import Trail
from migrate.pb import session_pb2 as pb
from migrate.processes import numbers, slices


class Asked(Stage):
    """Nothing has been touched."""

    def __init__(self, errand: Errand) -> None:
        self._errand = errand

    def begin(self, request: pb.Prepare) -> Begun:
        """Begin the journal, and start who would carry it out."""
        self.use_up()
        if not request.new_pid_namespace:
            numbers.pass_over([*request.pids, *request.tids])
        return Begun(
            self._errand,
            request,
            Trail(self._errand, request.pids[0]),
        )


class Begun(Undoable):
    """There is a journal, and it is empty."""

    def __init__(self, errand: Errand, request: pb.Prepare, trail: Trail) -> None:
        super().__init__(trail)
        self._errand, self._request = errand, request

    def prepare(self) -> Prepared:
        """Make ready what needs no image: CRIU, the filter, the place of the addresses, the image directory.

        :raises MigrateError, TcpcpError: :meth:`undo` leaves nothing.
        """
        self.use_up()
        trail, request = self.trail, self._request
        keeps = runtime.find(request.runtime)
        worker = Worker(
            role="destination",
            avoid_pids=[*request.pids, *request.tids] if request.new_pid_namespace else None,
            mark=self._errand.mark,
            personality=request.personality,
            heed=self._errand.called_off,
        )
        # What it has built is killed anyway.
        trail.first.callback(worker.close, grace_s=limits.CRIU_GIVE_UP_S)
        gate = Gate(request, trail.journal)
        images = Incoming(request, trail.journal)
        slices.usual()  # takes a thread, which nobody has to wait for later
        trail.guardian.wait_ready()
        return Prepared(Ready(self._errand, request, trail, worker, gate, keeps), images)
