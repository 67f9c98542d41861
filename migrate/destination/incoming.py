"""The images of a tree, and its connections, on the destination, while they arrive and when they have."""

from __future__ import annotations

from migrate import place, runtime
from migrate.criu import (
    ended_calls,
    ghosts,
    parents_death,
    renamed_files,
    sysv_segments,
    timerfds,
    unix_paths,
)
from migrate.criu.made_meanwhile import Meanwhile
from migrate.errors import ImageError
from migrate.events import log
from migrate.files.images import Receiver
from migrate.journal.journal import Journal
from migrate.link.payloads import Connections, Piece
from migrate.pb import session_pb2 as pb
from migrate.recovery import entries
from tcpcp.criu import completion, stages
from tcpcp.record.ici import Endpoint, Ici


class Incoming:
    """Their directory, in memory, empty.

    :ivar directory: where they are. :ivar held: who holds the connections, as the origin numbers them.
    """

    def __init__(self, request: pb.Prepare, journal: Journal) -> None:
        self.directory = place.choose_images(journal.migration_id)
        journal.did(entries.Images(str(self.directory), place.device_of(self.directory)))
        journal.hold(*place.make_images(self.directory))
        log.criu_in(self.directory)
        self.held: list[pb.HeldSocket] = []
        self._receiver = Receiver(self.directory)
        fed = request.same_path and request.connections <= stages.MOST_FED
        self._completion = completion.Completion(self.directory, teach=fed)

    def take(self, piece: Piece) -> None:
        """Take a piece of one. :raises MigrateError: they are to be thrown away."""
        self._receiver.take(piece)

    def connect(self, some: Connections) -> None:
        """Make CRIU's images of some connections, while others are still read on the origin.

        :raises TcpcpError: likewise.
        """
        self._completion.take(some.records)
        self.held += some.sockets

    def verify(self, restore: pb.Restore) -> None:
        """Make sure that all have arrived as they were sent. :raises ImageError: they have not."""
        self._receiver.verify(restore.manifest)

    def finish(self, restore: pb.Restore) -> list[Ici]:
        """Complete them with the connections, which are returned.

        :raises TcpcpError, ImageError: they make no sense, or are not all.
        """
        icis = self._completion.finish(restore.closed)
        if restore.HasField("connections") and restore.connections != len(icis):
            text = f"{len(icis)} connections have arrived of {restore.connections}"
            raise ImageError(text)
        return icis

    def listening(self) -> list[Endpoint]:
        """Where the listening sockets of the tree will be bound."""
        return completion.listeners_of_images(self.directory)

    def rename(self, restore: pb.Restore) -> None:
        """Files whose name is gone are opened by their other name."""
        renamed_files.rename(self.directory, restore.renamed)

    def begin_calls_again(self, restore: pb.Restore) -> None:
        """System calls that the dump has ended begin again."""
        ended_calls.begin_again(self.directory, restore.ended_calls)

    def set_timers(self) -> None:
        """Those of timerfd_create(2) fire when they would have."""
        timerfds.set_right(self.directory)

    def place_unix_sockets(self, request: pb.Prepare, journal: Journal) -> Meanwhile:
        """They get the paths that they had last, and a rollback removes those that are not there yet.

        :return: hears of those that others make there from now on.
        :raises Taken: somebody has a socket there, or a symbolic link leads elsewhere.
        """
        if request.runtime not in runtime.OF_HOST:  # its paths are in a container's own files
            return Meanwhile(())
        unix_paths.require_same_places(request.unix_sockets)
        journal.did(entries.Sockets(tuple(unix_paths.absent(request.unix_sockets))))
        unix_paths.place(self.directory, request.unix_sockets)
        binds = unix_paths.binds(self.directory)  # read once: there may be thousands of other files
        meanwhile = Meanwhile(unix_paths.bound_once(binds))
        try:
            unix_paths.require_free(binds)
        except BaseException:
            meanwhile.close()
            raise
        return meanwhile

    def note_ghosts(self, journal: Journal) -> None:
        """Directories that CRIU will make on the way to deleted ones are removed when all is over.

        :raises ProtocolError: the images are not CRIU's.
        """
        if missing := ghosts.missing(self.directory):
            journal.did(entries.OnTheWay(tuple(missing)))

    def forget_parent(self, root: int, restore: pb.Restore) -> list[str]:
        """The parent of *root* is not here. Sentences: what that means."""
        tids = [thread.tid for one in restore.surroundings if one.pid == root for thread in one.threads]
        return parents_death.forget(self.directory, root, tids)

    def mark_segments(self, root: int) -> list[str]:
        """Shared memory of System V of the tree that was built is locked and removed as it was.

        :param root: of that tree, as this host numbers it.
        :raises MigrateError: it cannot be. Sentences: what is different now.
        """
        return sysv_segments.put_back(root, self.directory)
