"""CRIU on the destination, which waits for the images: started by us, or by the runtime that restores a container.

It is started early. A runtime reads the bundle of its container, so its command is started when that has arrived; a
unit of systemd may need files that come along, too.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from migrate import limits
from migrate.criu.runtime_worker import RuntimeWorker
from migrate.criu.worker import Worker
from migrate.destination.errand import Errand
from migrate.destination.reconnections import Reconnections
from migrate.destination.trail import Trail
from migrate.errors import ProtocolError, Taken
from migrate.files import layer, stream
from migrate.inventory import of_unit
from migrate.link.payloads import Piece
from migrate.pb import session_pb2 as pb
from migrate.processes import arriving_unit, drop_in, network, oci, podman
from migrate.recovery import entries
from migrate.runtime import Runtime
from migrate.runtime import oci as plain
from migrate.runtime import podman as by_podman
from migrate.runtime.unit import OfUnit
from migrate.switch import Address, new_interfaces
from migrate.switch.interface import OwnInterface


class Waiting:
    """That of one migration, which has not been started.

    :param keeps: has the tree here.
    """

    def __init__(self, errand: Errand, request: pb.Prepare, trail: Trail, keeps: Runtime) -> None:
        self._errand, self._request, self._trail, self._keeps = errand, request, trail, keeps
        self._placeholder: arriving_unit.Placeholder | None = None
        self._started: list[Worker] = []
        #: Which CRIU has inherited, if it is our own.
        self.reconnections = Reconnections()
        #: Of podman's container, once it waits: where its files are, and what is put there as it comes.
        self.place = by_podman.Place()
        self._unpacking: stream.Unpacking | None = None

    @property
    def needs_no_file(self) -> bool:
        """Whether it can be started before any file has arrived: only a plain runtime reads what we bring."""
        errand = self._errand
        return not (errand.container.name or errand.unit.name) or bool(errand.container.archive)

    def begin(self) -> None:
        """Start it, if that has not been done.

        :raises CriuError: it cannot be. :raises Taken: the runtime has a container of that name, since the check.
        """
        if not self._started:
            worker = self._begun()
            # What it has built is killed anyway.
            self._trail.first.callback(worker.close, grace_s=limits.CRIU_GIVE_UP_S)
            self._started.append(worker)

    @property
    def worker(self) -> Worker:
        """It, once it has been started. :raises ProtocolError: it has not, for what it needs was not sent."""
        if not self._started:
            raise ProtocolError("received a Restore before the files of the container")
        return self._started[0]

    def take(self, piece: Piece) -> None:
        """Take a piece of what a container has written so far: it comes to where podman has made a place for it.

        :raises MigrateError: it cannot be written. :raises ProtocolError: there is no such place.
        """
        if not self.place.root:
            raise ProtocolError("received the files of no container")
        if self._unpacking is None:
            self._unpacking = stream.Unpacking(self.place.root, self._errand.called_off)
            self._trail.first.callback(self._unpacking.close)
        self._unpacking.take(piece)
        if piece.last:
            self._unpacking = None

    def fill(self, images: Path) -> None:
        """What it has written since comes there, too, and what is in its /dev/shm.

        :raises MigrateError: it cannot be written.
        """
        if self.place.root:
            _unpack(images / by_podman.LAYER, self.place.root)
            layer.clear(self.place.shm)
            _unpack(images / by_podman.SHM, self.place.shm)

    def check(self) -> None:
        """Return while it lives, or has not been started. :raises CriuError: it has ended."""
        for worker in self._started:
            worker.check()
        if self._placeholder is not None:
            self._placeholder.check()

    def _begun(self) -> Worker:
        if self._errand.container.archive:
            return self._of_podman()
        if self._errand.unit.name:
            return self._of_unit()
        return self._of_runtime() if self._errand.container.name else self._own()

    def _own(self, inherit: Sequence[int] = ()) -> Worker:
        request = self._request
        with self.reconnections.made(request.reconnections) as made:
            return Worker(
                role="destination",
                avoid_pids=[*request.pids, *request.tids] if request.new_pid_namespace else None,
                mark=self._errand.mark,
                inherit=[*inherit, *made],
                personality=request.personality,
                heed=self._errand.called_off,
            )

    def _of_unit(self) -> Worker:
        """In the unit's cgroup: what it restores is born there."""
        said, journal, keeps = self._errand.unit, self._trail.journal, self._keeps
        if not isinstance(keeps, OfUnit):
            raise ProtocolError(f"received a unit that {keeps.name} keeps")
        path, host = drop_in.place(said.name, journal.migration_id), self._errand.origin_host
        number = of_unit.number_file(said)
        journal.did(entries.OfUnit(said.name, str(path), host, *number))
        wanted = frozenset(said.streams.values())
        placeholder = arriving_unit.begin(said.name, path, wanted, self._errand.called_off)
        self._trail.first.callback(placeholder.close)
        journal.did(entries.OfUnit(said.name, str(path), host, *number, *placeholder.process))
        adopt = functools.partial(arriving_unit.take_over, said.name, placeholder.process)
        keeps.arrives(placeholder, said.streams.items(), adopt)
        worker = self._own([*placeholder.streams.values()])
        try:
            placeholder.take_in(worker.pid)
        except BaseException:
            worker.close(grace_s=limits.CRIU_GIVE_UP_S)
            raise
        self._placeholder = placeholder
        return worker

    def _of_runtime(self) -> Worker:
        said = self._errand.container
        if oci.home(said.runtime, said.name).exists():
            hint = f"Remove it there, or rename it: {said.runtime} delete {said.name}"
            raise Taken(f"{said.runtime} has a container {said.name} since the check", hint=hint)
        self._trail.journal.did(entries.Arriving(said.runtime, said.name, said.bundle))
        directory = self._directory()
        asking = plain.restoring(
            said.runtime,
            said.name,
            said.bundle,
            said.descriptors,
            directory,
            **self._how(),
        )
        return RuntimeWorker(asking, heed=self._errand.called_off)

    def _of_podman(self) -> Worker:
        """It makes root and network of the container; nobody may hear of that network before the switch."""
        said, journal = self._errand.container, self._trail.journal
        if podman.knows(said.id) or podman.knows(said.name):
            hint = f"Remove it there, or rename it: podman rm {said.name}"
            raise Taken(f"podman has a container {said.name} since the check", hint=hint)
        if not podman.named(said.image, said.image_name):  # it would ask a registry for one of that name
            text = f"podman has no image {said.image_name} like the one at the origin since the check"
            raise Taken(text, hint="Try again.")
        journal.did(entries.Muted(journal.migration_id))
        journal.did(entries.OfPodman(said.id, said.by, said.bundle))
        with network.home():
            new_interfaces.mute(journal.migration_id, said.hardware)
            lost = by_podman.lost(said.id, said.by)
            asking = by_podman.restoring(said.archive, self._directory(), lost=lost, **self._how())
            worker = RuntimeWorker(asking, heed=self._errand.called_off)
        try:
            self.place = by_podman.placed(said.bundle)
            self._errand.go_into(self.place.network)
            journal.did(entries.Joined(self.place.network))
            self._be_mute()
        except BaseException:
            worker.close(grace_s=limits.CRIU_GIVE_UP_S)
            raise
        return worker

    def _be_mute(self) -> None:
        """In its own network, in which we are; what has kept it mute outside goes."""
        request, journal = self._request, self._trail.journal
        addresses = [Address(one.address, one.prefix_length, one.device) for one in request.addresses]
        OwnInterface("destination", journal.migration_id, addresses).mute()
        entries.Muted(journal.migration_id).undo()

    def _directory(self) -> Path:
        directory = self._trail.journal.directory / "runtime"
        directory.mkdir(mode=0o700)
        return directory

    def _how(self) -> dict[str, Any]:
        return {
            "environment": dict([self._errand.mark.split("=", 1)]),
            "personality": self._request.personality,
            "heed": self._errand.called_off,
        }


def _unpack(archive: Path, directory: str) -> None:
    with archive.open("rb") as source:
        layer.unpack(source, directory)
