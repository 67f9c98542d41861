"""The first states of the destination: asked, and begun to make ready."""

from __future__ import annotations

from migrate import runtime
from migrate.destination.errand import Errand
from migrate.destination.gate import Gate
from migrate.destination.image_taken import ImageTaken
from migrate.destination.incoming import Incoming
from migrate.destination.prepared import Prepared
from migrate.destination.stage import Ending, Ready, Stage, Undoable
from migrate.destination.trail import Trail
from migrate.destination.waiting import Waiting
from migrate.errors import ProtocolError
from migrate.link.payloads import Piece
from migrate.pb import session_pb2 as pb
from migrate.processes import numbers, slices


class Asked(Stage):
    """Nothing has been touched."""

    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        self._image: ImageTaken | None = None

    def take(self, piece: Piece) -> None:
        """Take a piece of the image of a container of podman's, which is missing here.

        :raises MigrateError: it cannot be loaded. :raises ProtocolError: there is no such container.
        """
        if not self._errand.container.archive:
            raise ProtocolError("received an image of no container")
        if self._image is None:
            self._image = ImageTaken(self._errand.container, self._errand.called_off)
        self._image.take(piece)

    def undo(self) -> Ending:
        """See :class:`Stage`: what is loaded stays, what is being loaded goes."""
        if self._image is not None:
            self._image.close()
        return super().undo()

    def begin(self, request: pb.Prepare) -> Begun:
        """Begin the journal, and start who would carry it out."""
        self.use_up()
        if self._image is not None:
            self._image.close()
        if not request.new_pid_namespace and not self._errand.container.name:
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
        waiting = Waiting(self._errand, request, trail, keeps)
        if waiting.needs_no_file:
            waiting.begin()
        gate = Gate(request, trail.journal, own_network=bool(self._errand.container.network))
        images = Incoming(request, trail.journal)
        trail.guardian.hold_images(images.directory)
        slices.usual()  # takes a thread, which nobody has to wait for later
        trail.guardian.wait_ready()
        return Prepared(Ready(self._errand, request, trail, waiting, gate, keeps), images)
