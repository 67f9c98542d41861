"""A container of podman: podman itself says what CRIU is to be told of it, and has it on the destination.

Podman runs runc or crun, which run CRIU. Our stand-in for CRIU is in that place. At the origin podman's checkpoint
is answered as if it had been done: so its archive is written, without a freeze. On the destination its restore of
that archive is started before the freeze, and waits at its request, as that of a plain runtime does.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migrate.criu.asked import LOOK, Asking, Held
from migrate.criu.runtime_worker import options_of
from migrate.errors import CriuError, MigrateError
from migrate.processes import network, oci, podman
from migrate.runtime.oci import Named, criu

#: Beside CRIU's images: what the container has written to its root, and what is in its /dev/shm.
LAYER, SHM = "layer.tar", "shm.tar"
#: What podman looks for in an archive, and does not read.
_STUB = "inventory.img"
#: Of an archive without the container's files; its configuration and its profile of system calls are in it.
_MOST_ARCHIVE_BYTES = 4 << 20
_ENDS_S = 10.0


class Podman(Named):
    """The one that there is."""

    def __init__(self) -> None:
        super().__init__(podman.NAME)

    def ask(self, container: podman.Podman) -> bytes:
        """On the origin: have podman write the archive of a checkpoint that is not done: it stays as it is.

        :return: the archive, without images of CRIU's and without the container's files.
        :raises CriuError: it cannot checkpoint this container.
        """
        from pycriu import rpc_pb2 as rpc

        with tempfile.TemporaryDirectory(prefix="migrate-asks-", dir="/run") as made, network.home():
            archive = Path(made) / "archive.tar"
            words = ["container", "checkpoint", "--leave-running", "--ignore-rootfs", f"--export={archive}"]
            words += ["--compress=none", "--tcp-established", container.id]
            asking = Asking([_program(), *words], Path(made), criu(), speaks=True)
            try:
                held = asking.request(rpc.DUMP)
                self._options[:] = [options_of(held.request)]
                _pretend(held, Path(container.bundle) / "checkpoint")
                ended = asking.ended(_ENDS_S)
                held.close()
            finally:
                asking.close()
            if not ended or not archive.exists() or archive.stat().st_size > _MOST_ARCHIVE_BYTES:
                why = asking.told() or "it says nothing"
                raise CriuError(f"podman writes no archive of the container: {why}", hint=LOOK)
            return archive.read_bytes()


def _pretend(held: Held, images: Path) -> None:
    """Answer the request for a dump as if it had been done, and have that CRIU end well.

    What a client of CRIU's library reads of an answer has to be in it (criu/lib/c/criu.c criu_local_dump()).
    """
    from pycriu import rpc_pb2 as rpc

    (images / _STUB).write_bytes(b"later")
    held.criu.send(rpc.criu_req(type=rpc.VERSION).SerializeToString())
    held.criu.recv(1 << 16)
    done = rpc.criu_resp(type=rpc.DUMP, success=True)
    done.dump.restored = False
    held.runtime.send(done.SerializeToString())


def restoring(archive: bytes, directory: Path, **more: Any) -> Asking:
    """On the destination: the command of podman that restores what is in *archive*, for a RuntimeWorker.

    :param archive: what :meth:`Podman.ask` has returned. :param directory: an empty one, root's alone.
    :param more: as for :class:`migrate.criu.asked.Asking`.
    :raises CriuError: it cannot be started.
    """
    path = directory / "archive.tar"
    path.write_bytes(archive)
    words = ["container", "restore", "--tcp-established", f"--import={path}"]
    return Asking([_program(), *words], directory, criu(), speaks=True, **more)


def secrets_of(archive: bytes) -> dict[str, str]:
    """The secrets of the container of an *archive*, as :meth:`Podman.ask` returns it, that are variables of its
    environment, by their names; podman does not show them.

    :raises TypeError, AttributeError: it makes no sense.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as found:
            content = found.extractfile("config.dump")
            said = json.loads(content.read()) if content else {}
    except (tarfile.TarError, KeyError, ValueError):
        return {}
    return {str(name): str(one.get("name")) for name, one in (said.get("secret_env") or {}).items()}


def lost(container: str, by: str) -> str:
    """What the user is told of a container that runs, *by* runc or crun, whose podman has died meanwhile.

    Seen with podman 4.3: conmon may start podman's clean-up then, which takes the network away.
    """
    return (
        ", and its network may have been taken away by conmon. Where clients are not served, start it anew after:"
        f" podman rm -f -t 0 {container}; {by} delete -f {container}"
    )


@dataclass(frozen=True, slots=True)
class Place:
    """What podman has made for a container: its root, its /dev/shm, and its network namespace; paths, or ""."""

    root: str = ""
    shm: str = ""
    network: str = ""


def placed(bundle: str) -> Place:
    """On the destination, while the restore waits.

    :raises MigrateError: podman has made them otherwise than it was understood.
    """
    try:
        configuration = (Path(bundle) / "config.json").read_bytes()
        said = json.loads(configuration)
        shm = next((one["source"] for one in said["mounts"] if one["destination"] == "/dev/shm"), "")
        found = Place(str(said["root"]["path"]), str(shm), oci.network(configuration))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MigrateError(
            f"what podman has made of the container cannot be read: {error}", hint=LOOK
        ) from error
    if not os.path.ismount(found.root) or not network.is_there(found.network):
        text = "podman has not made the container's root and network where it says they are"
        raise MigrateError(text, hint=LOOK)
    return found


def _program() -> str:
    if not (path := oci.program(podman.NAME)):
        raise CriuError("podman is not installed", hint="Install podman, or add it to root's PATH.")
    return path
