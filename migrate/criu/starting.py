"""How a worker of CRIU is started: what makes or enters a namespace for it, and what it inherits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from migrate.criu import mount_namespace, unasked
from migrate.criu.own_namespace import Namespace

#: Where CRIU's configuration has hooks of the plug-in's (:mod:`migrate.criu.configuration`) they do nothing for us.
_NO_HOOKS = {"TCPCP_HOOKS": "none"}


def started(
    command: list[str], descriptors: list[int], role: str, mark: str, says_init: bool
) -> subprocess.Popen[bytes]:
    """Start it.

    :param says_init: it writes to its standard output which process is the init of the namespace.
    """
    return subprocess.Popen(
        command,
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if says_init else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A task without supplementary groups gets CRIU's: it leaves out setgroups() for none.
        extra_groups=() if role == "destination" else None,
        env=os.environ | _NO_HOOKS | dict([mark.split("=", 1)] if mark else []),
        # Ctrl-C is for the driver: a task may die of a CRIU that is killed while it works in it.
        process_group=0 if role == "origin" else None,
    )


def namespaced(avoid_pids: list[int] | None) -> list[str]:
    """The beginning of a command that runs in a new PID namespace."""
    if not avoid_pids:
        return []
    script = Path(__file__).with_name("pid_namespace.py")
    pid_max = int(Path("/proc/sys/kernel/pid_max").read_text())
    room = 1000
    last = max(avoid_pids) + 1 if max(avoid_pids) + room < pid_max else 300
    return [sys.executable, "-I", "-S", str(script), str(last)]


def telling(epolls_known: bool) -> list[str]:
    """The beginning of a command that need not ask what epolls watch."""
    return [sys.executable, "-I", "-S", unasked.__file__] if epolls_known else []


def entering(within: Namespace | None) -> list[str]:
    """The beginning of a command that runs in the mount namespace of a tree."""
    if within is None:
        return []
    script = Path(mount_namespace.__file__)
    return [sys.executable, "-I", "-S", str(script), str(within.descriptors["mnt"])]
