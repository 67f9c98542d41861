"""The plug-in for CRIU on both hosts of a lab, as its users install it, with the resident helper or without."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.containers import HOSTS
from harness.wait import eventually
from migrate.lab import Host, Lab

RESIDENT = (sys.executable, "-I", "-m", "tcpcp.criu.resident")
LOG = "/root/resident.log"


@contextlib.contextmanager
def installed(lab: Lab, *, resident: bool = True, runtime: str = "podman") -> Iterator[None]:
    """Meanwhile it is on both hosts."""
    helpers: list[tuple[Host, int]] = []
    try:
        for host in (lab.hosts[name] for name in HOSTS):
            host.exec(["migrate", "plugin", "install", "--runtime", runtime])
            if resident:
                helpers.append((host, host.spawn(list(RESIDENT), log=LOG)))
                _await(host)
        yield
    finally:
        for host, pid in helpers:
            host.exec(["kill", f"-{signal.SIGTERM:d}", str(pid)], check=False)
        for host in (lab.hosts[name] for name in HOSTS):
            host.exec(["migrate", "plugin", "uninstall"])


@contextlib.contextmanager
def stopped(host: Host) -> Iterator[None]:
    """Its helper hangs meanwhile."""
    find = ["pgrep", "-o", "-f", "tcpcp.criu.resident"]
    pid = host.exec(find).stdout.strip()
    host.exec(["kill", "-STOP", pid])
    try:
        yield
    finally:
        host.exec(["kill", "-CONT", pid])


@contextlib.contextmanager
def held(host: Host, stage: str) -> Iterator[Callable[[], None]]:
    """CRIU waits at *stage*, after the hook of it, meanwhile; what is given waits until it does."""
    script = Path(f"{host.root}/etc/criu/tcpcp-hook")
    before = script.read_text()
    reached, go_on = "/root/reached", "/root/go-on"
    host.exec(["mkfifo", reached, go_on])
    wait = f"[ $CRTOOLS_SCRIPT_ACTION != {stage} ] || {{ echo > {reached}; timeout 60 cat {go_on}; }}"
    script.write_text(before.replace("exec </dev/null\n", f"exec </dev/null\n{wait}\n"))
    try:
        yield lambda: print(Path(f"{host.root}{reached}").read_text())
    finally:
        script.write_text(before)
        host.exec(["rm", reached, go_on])


def said(host: Host) -> str:
    """What the helper had to complain of."""
    return host.exec(["cat", LOG], check=False).stdout


def _await(host: Host) -> None:
    def there() -> bool:
        return host.exec(["migrate", "plugin", "status"], check=False).returncode == 0

    eventually(there, f"the helper of {host.name} answers", pause_s=0.1)
