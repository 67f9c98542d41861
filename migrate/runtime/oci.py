"""A container of runc or crun: its runtime says what CRIU is to be told of it, and has it on the destination."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from migrate.criu import worker
from migrate.criu.asked import Asking, said_in
from migrate.criu.runtime_worker import options_of
from migrate.errors import CriuError, MigrateError
from migrate.pb.session_pb2 import ProcessInventory
from migrate.processes import oci
from migrate.processes.identity import Identity
from migrate.runtime.bare import Bare

#: What runc and crun keep beside CRIU's images: where the standard streams of the container led.
DESCRIPTORS = "descriptors.json"
_NO_STREAMS = json.dumps(["/dev/null"] * 3).encode()


class Named:
    """See :class:`migrate.runtime.Runtime`: what all have in common that say what CRIU is to be told, and have the
    container when it is restored.

    :param name: of the program.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._options: list[Any] = []

    def keeps(self, pid: int) -> bool:
        """None by its PID: a container is named."""
        return False

    def inventory(self, pid: int) -> ProcessInventory:
        """See :class:`migrate.runtime.Runtime`."""
        # Here, since who undoes needs none of it, and is in a hurry.
        from migrate.inventory import of_container

        return of_container.process(pid)

    def dump_options(self, opts: Any, *, shell_job: bool) -> None:
        """What the runtime has said when it was asked."""
        for theirs in self._options:
            opts.MergeFrom(theirs)

    def restore_options(self, opts: Any, *, shell_job: bool) -> None:
        """Nothing: the runtime itself asks CRIU."""

    def give_back(self, root: int) -> list[str]:
        """It has had the container since it was restored."""
        return []

    def undo(self, built: Iterable[Identity], mark: str, images: str) -> None:
        """End its processes; the runtime has one more thing to forget, see the entries of the journal."""
        Bare().undo(built, mark, images)


class Oci(Named):
    """One of runc or crun."""

    def ask(self, container: str) -> bytes:
        """On the origin: have the runtime say what CRIU is to be told at a dump, and refuse it: nothing is touched.

        :return: what it would keep of the container's standard streams.
        :raises CriuError: it cannot checkpoint this container, or says nothing.
        """
        from pycriu import rpc_pb2 as rpc

        with tempfile.TemporaryDirectory(prefix="migrate-asks-", dir="/run") as made:
            here = Path(made)
            images = here / "images"
            words = [
                *_command(self.name, here),
                "checkpoint",
                "--leave-running",
                *_images(images, here / "work"),
            ]
            asking = Asking([*words, container], here, criu())
            try:
                held = asking.request(rpc.DUMP)
                self._options[:] = [options_of(held.request)]
                refused = rpc.criu_resp(type=rpc.DUMP, success=False, cr_errmsg="only asked")
                held.runtime.send(refused.SerializeToString())
                asking.ended(1.0)
                held.close()
            finally:
                asking.close()
            kept = images / DESCRIPTORS
            return kept.read_bytes() if kept.exists() else _NO_STREAMS


def restoring(
    runtime: str, container: str, bundle: str, descriptors: bytes, directory: Path, **more: Any
) -> Asking:
    """On the destination: the command of *runtime* that restores *container*, for a RuntimeWorker.

    :param descriptors: what :meth:`Oci.ask` has returned. :param directory: an empty one, root's alone.
    :param more: as for :class:`migrate.criu.asked.Asking`.
    :raises CriuError: it cannot be started.
    """
    images, work = directory / "images", directory / "work"
    images.mkdir(mode=0o700)
    (images / DESCRIPTORS).write_bytes(descriptors or _NO_STREAMS)
    words = [*_command(runtime, directory), "restore", "-d", *_images(images, work), "--bundle", bundle]
    return Asking([*words, container], directory, criu(), **more)


def _command(runtime: str, directory: Path) -> list[str]:
    if not (path := oci.program(runtime)):
        raise CriuError(f"{runtime} is not installed", hint=f"Install {runtime}, or add it to root's PATH.")
    return [path, "--log", str(said_in(directory))]


def _images(images: Path, work: Path) -> Sequence[str]:
    return ["--image-path", str(images), "--work-path", str(work), "--tcp-established", "--ext-unix-sk"]


def criu() -> str:
    """The CRIU that is put into the place of the runtime's. :raises MigrateError: there is none."""
    if not (path := worker.program()):
        raise MigrateError("criu is not installed", hint=worker.GET_CRIU)
    return path
