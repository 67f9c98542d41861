"""Containers of runc and crun, as these tell of them: which there are, and how one that has gone is forgotten.

Source: man runc(8), crun(1); https://github.com/opencontainers/runtime-spec, config.md and runtime.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migrate import limits
from migrate.errors import MigrateError
from migrate.processes import mounts

RUNTIMES = ("runc", "crun")
#: What is part of a path, and comes over the network.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,254}")
#: Where a runtime keeps what it knows of its containers, if root has not told it otherwise.
_STATES = Path("/run")
#: As a runtime says it of a container that has processes.
RUNS = ("running", "paused")
#: Where a runtime mounts the root file system once more for CRIU.
_CRIU_ROOT = "criu-root"
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Container:
    """One that runs on this host.

    :ivar version: of its runtime, as it says it. :ivar pid: of its first process.
    :ivar configuration: the content of config.json in *bundle*.
    :ivar network: path of its network namespace; "": that of the host, or one without a path.
    """

    runtime: str
    name: str
    version: str
    pid: int
    bundle: str
    configuration: bytes
    network: str


def program(runtime: str) -> str:
    """Its path; "" if it is not installed."""
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return shutil.which(runtime, path=path) or ""


def version(runtime: str) -> str:
    """What it says of its version; "" if it is not installed, or does not say."""
    words = said(runtime, "--version")
    return words.partition("\n")[0].strip()


def state(runtime: str, name: str) -> dict[str, Any]:
    """What it knows of the container *name*; nothing: there is none."""
    with contextlib.suppress(ValueError):
        found = json.loads(said(runtime, "state", name) or "{}")
        return found if isinstance(found, dict) else {}
    return {}


def find(runtime: str, name: str) -> Container | None:
    """The container *name*, if it runs.

    :raises OSError, ValueError: its bundle cannot be read.
    """
    found = state(runtime, name)
    if found.get("status") not in RUNS:
        return None
    bundle = str(found["bundle"])
    configuration = (Path(bundle) / "config.json").read_bytes()
    said = version(runtime)
    return Container(runtime, name, said, int(found["pid"]), bundle, configuration, network(configuration))


def network(configuration: bytes) -> str:
    """The path of the network namespace that config.json names, "" if it names none.

    :raises ValueError: it is no configuration.
    """
    linux = json.loads(configuration).get("linux") or {}
    found = (one.get("path", "") for one in linux.get("namespaces") or () if one.get("type") == "network")
    return str(next(found, ""))


def home(runtime: str, name: str) -> Path:
    """The directory in which it keeps what it knows of the container."""
    return _STATES / runtime / name


def cgroups() -> str:
    """Which cgroups this host has: "v2" if a runtime sees version 2 alone, else "v1"."""
    found = {one.place: one.kind for one in mounts.here()}
    return "v2" if found.get("/sys/fs/cgroup") == "cgroup2" else "v1"


def remove(runtime: str, name: str, bundle: str) -> None:
    """Have it forget a container of which no process is left. Nothing happens where there is none.

    The runtime mounts the root file system once more for CRIU, below what it removes, and leaves that there if it
    was killed: whoever removed the one would remove the other. So that goes first.

    :raises MigrateError: the container runs, or is still known.
    """
    if runtime not in RUNTIMES or not NAME.fullmatch(name):
        raise MigrateError(f"no container is called {name!r} of {runtime!r}", hint="Look at the journal.")
    unmount(runtime, name, bundle)
    with contextlib.suppress(OSError):
        (Path(bundle) / _CRIU_ROOT).rmdir()  # crun's, which makes none where one is
    if not home(runtime, name).exists():
        return
    if state(runtime, name).get("status") in RUNS:
        hint = f"Look whose it is: {runtime} state {name}. Once it has ended: migrate --recover."
        raise MigrateError(f"container {name} of {runtime} runs", hint=hint)
    said(runtime, "delete", "--force", name)
    if home(runtime, name).exists():
        hint = f"Look at it: {runtime} state {name}; {runtime} delete --force {name}"
        raise MigrateError(f"{runtime} does not forget container {name}", hint=hint)


def unmount(runtime: str, name: str, bundle: str) -> None:
    """Have its root mounted no more where a runtime that was killed has left it, for CRIU.

    :raises MigrateError: it still is.
    """
    for one in reversed(list(_its(runtime, name, bundle))):
        _libc.umount2(os.fsencode(one), _MNT_DETACH)
    if left := list(_its(runtime, name, bundle)):
        hint = (
            f"Unmount it before anything else, or the container's files are removed with it: umount {left[0]}"
        )
        raise MigrateError(f"{left[0]} is still mounted", hint=hint)


def _its(runtime: str, name: str, bundle: str) -> Iterator[str]:
    """Where its root is mounted for CRIU: runc does that below its own directory, crun in the bundle."""
    below = f"{home(runtime, name)}/"
    for one in mounts.here():
        if one.place.startswith(below) or one.place == f"{bundle}/{_CRIU_ROOT}":
            yield one.place


def said(runtime: str, *words: str) -> str:
    """What the command writes; "" if it fails, or is not there."""
    if not (path := program(runtime)):
        return ""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        ran = subprocess.run(
            [path, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limits.KILLED_S,
            check=False,
        )
        return ran.stdout.decode(errors="replace") if ran.returncode == 0 else ""
    return ""


def known(runtimes: Iterable[str] = RUNTIMES) -> list[str]:
    """Those of *runtimes* that are installed."""
    return [one for one in runtimes if program(one)]
