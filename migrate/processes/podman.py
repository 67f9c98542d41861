"""Containers of podman, as it tells of them: which there are, what they are, how one that has gone is forgotten.

Podman works in the network namespace of the host, whichever one we are in.

Source: man podman(1), podman-container-inspect(1), podman-rm(1), conmon(8).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from migrate import limits
from migrate.errors import MigrateError
from migrate.processes import identity, mounts, network, oci
from migrate.processes.identity import Identity

NAME = "podman"
#: Of a container: what comes over the network, and is part of paths and commands.
ID = re.compile(r"[0-9a-f]{64}")
_CONFIGURATION = "config.json"
#: Podman writes it into the configuration of each of its containers, and Docker and CRI-O others.
_MANAGER = "io.container.manager"


@dataclass(frozen=True, slots=True)
class Podman(oci.Container):
    """One that runs on this host.

    :ivar id: its number. :ivar by: the runtime by which it runs. :ivar monitor: conmon, which waits for its end and
        tells podman, or starts it again.
    :ivar image, image_name: what its root is made of. :ivar storage: driver, and the two directories, of podman.
    :ivar said: what podman says of it.
    """

    id: str = ""
    by: str = ""
    monitor: Identity = (0, 0)
    image: str = ""
    image_name: str = ""
    storage: str = ""
    said: Mapping[str, Any] = field(default_factory=dict)

    @property
    def networks(self) -> dict[str, Mapping[str, Any]]:
        """Its networks by their names."""
        return networks(self.said)

    @property
    def addresses(self) -> list[str]:
        """Those that podman has given it."""
        return addresses(self.said)


def networks(said: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The networks, by their names, of the container of which podman says that."""
    return (said.get("NetworkSettings") or {}).get("Networks") or {}


def addresses(said: Mapping[str, Any]) -> list[str]:
    """Its addresses in them."""
    both = ("IPAddress", "GlobalIPv6Address")
    found = (str(one.get(name) or "") for one in networks(said).values() for name in both)
    return [one for one in found if one]


def hardware(container: Podman) -> list[str]:
    """The hardware addresses that podman has given it."""
    found = (str(one.get("MacAddress") or "") for one in container.networks.values())
    return [one for one in found if one]


def version() -> str:
    """What podman says of its version; "" if it is not installed."""
    return said("--version").strip()


def versions(by: str) -> str:
    """Its version and that of the runtime *by*; "" if one of them is not installed."""
    both = version(), oci.version(by)
    return ", ".join(both) if all(both) else ""


def storage() -> str:
    """The storage's driver, where it is, and where what does not outlive a boot is; "" if podman does not say."""
    form = "{{.Store.GraphDriverName}} {{.Store.GraphRoot}} {{.Store.RunRoot}}"
    return said("info", "--format", form).strip()


def inspect(*names: str) -> list[dict[str, Any]]:
    """What podman says of these containers; nothing if it does not know one of them."""
    with contextlib.suppress(ValueError):
        found = json.loads(said("container", "inspect", *names) or "[]")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return []


def find(name: str) -> Podman | None:
    """The container *name*, if it runs.

    :raises OSError, ValueError, KeyError: it cannot be looked at.
    """
    found = next(iter(inspect(name)), {})
    state = found.get("State") or {}
    if not state.get("Running") or not ID.fullmatch(str(found.get("Id"))):
        return None
    by = Path(str(found.get("OCIRuntime"))).name
    configuration = Path(str(found["OCIConfigPath"]))
    content = configuration.read_bytes()
    try:
        monitor = identity.identity(int(state.get("ConmonPid") or 0))
    except ProcessLookupError:
        monitor = (0, 0)
    return Podman(
        NAME,
        str(found["Name"]),
        versions(by),
        int(state["Pid"]),
        str(configuration.parent),
        content,
        oci.network(content),
        id=str(found["Id"]),
        by=by,
        monitor=monitor,
        image=str(found.get("Image") or ""),
        image_name=str(found.get("ImageName") or ""),
        storage=storage(),
        said=found,
    )


def is_its(configuration: bytes) -> bool:
    """Whether the container with this config.json is one of podman's."""
    with contextlib.suppress(ValueError, AttributeError):
        return bool((json.loads(configuration).get("annotations") or {}).get(_MANAGER) == "libpod")
    return False


def upper(pid: int) -> str:
    """The directory that has what the container, of which *pid* is a process, has written to its root; "" if that
    is no overlay.

    :raises OSError: the process has ended.
    """
    found = mounts.parse(os.fsdecode(Path(f"/proc/{pid}/mountinfo").read_bytes()))
    root = next((one for one in found if one.place == "/"), None)
    if root is None or root.kind != "overlay":
        return ""
    options = dict(one.partition("=")[::2] for one in root.more)
    return options.get("upperdir", "")


def knows(name: str) -> bool:
    """Whether podman has a container of this name, or number."""
    ran = _ran("container", "exists", name)
    return ran is not None and ran.returncode == 0


def has_image(image: str) -> bool:
    """Whether podman has the image of this number."""
    ran = _ran("image", "exists", image)
    return ran is not None and ran.returncode == 0


def image(name: str) -> str:
    """The number of the image that is called *name*; "" if none is."""
    return said("image", "inspect", "--format", "{{.Id}}", name).strip()


def named(image_: str, name: str) -> bool:
    """Whether podman has the image of the number *image_*, called *name*; where it has no name yet it gets that."""
    if image(name) == "" and has_image(image_):
        _ran("tag", image_, name)
    return image(name) == image_


def saving(image_: str, name: str, said_to: int) -> subprocess.Popen[bytes]:
    """Podman, which writes that image to its standard output, and what goes wrong to *said_to*.

    :param name: goes with it, if it is still that of the image.
    :raises MigrateError: it cannot be started.
    """
    which = name if image(name) == image_ else image_
    return _started("save", "--quiet", which, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, said=said_to)


def loading(source: int, said_to: int) -> subprocess.Popen[bytes]:
    """Podman, which loads an image that it reads from *source*, which is closed here. Else as :func:`saving`."""
    try:
        return _started("load", "--quiet", stdin=source, stdout=subprocess.DEVNULL, said=said_to)
    finally:
        os.close(source)


def _started(*words: str, stdin: int, stdout: int, said: int) -> subprocess.Popen[bytes]:
    try:
        with network.home():
            return subprocess.Popen(
                [oci.program(NAME) or NAME, *words],
                stdin=stdin,
                stdout=stdout,
                stderr=said,
                start_new_session=True,
            )
    except OSError as error:
        raise MigrateError(f"cannot start podman: {error.strerror}", hint="Install it.") from error


def remove(number: str, by: str, bundle: str) -> None:
    """Have podman forget a container of which no process is left. Nothing happens where there is none.

    A restore that is still under way keeps it locked, so this waits for its end.

    :raises MigrateError: the container runs, or is still known.
    """
    if by not in oci.RUNTIMES or not ID.fullmatch(number):
        raise MigrateError(
            f"podman has no container of the number {number[:100]!r}", hint="Look at the journal."
        )
    if oci.state(by, number).get("status") in oci.RUNS:
        hint = f"Look whose it is: podman inspect {number}. Once it has ended: migrate --recover."
        raise MigrateError(f"container {number[:12]} of podman runs", hint=hint)
    oci.unmount(by, number, bundle)
    _ran("rm", "--force", "--time", "0", number)
    oci.remove(by, number, bundle)
    if knows(number):
        raise MigrateError(
            f"podman does not forget container {number[:12]}", hint=f"Look at it: podman rm -f {number[:12]}"
        )


def said(*words: str) -> str:
    """What the command writes; "" if it fails, or podman is not there."""
    ran = _ran(*words)
    return ran.stdout.decode(errors="replace") if ran is not None and ran.returncode == 0 else ""


def _ran(*words: str) -> subprocess.CompletedProcess[bytes] | None:
    if not (path := oci.program(NAME)):
        return None
    with contextlib.suppress(OSError, subprocess.TimeoutExpired), network.home():
        return subprocess.run(
            [path, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limits.PODMAN_S,
            check=False,
        )
    return None
