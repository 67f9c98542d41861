"""Ways to break a host of the lab for a while, and to stop a migration half way."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from bad_input_bench import InputBench

from migrate.criu import worker
from migrate.lab import Host
from migrate.link import frames as wire
from migrate.link import speech
from migrate.pb.session_pb2 import Frame, Hello
from tcpcp.version import VERSION

IMAGE_PLACES = ("/run", "/dev/shm")
_ALIASES = """
Host dropped
  HostName 10.77.1.2
  Port 2222
  ConnectTimeout 1
Host silent
  HostName 10.77.1.2
  Port 2223
  ConnectTimeout 1
Host unknown
  HostName 10.77.1.2
  UserKnownHostsFile /root/.ssh/known_none
Host changed
  HostName 10.77.1.2
  UserKnownHostsFile /root/.ssh/known_wrong
"""


@contextlib.contextmanager
def ssh_aliases(bench: InputBench) -> Iterator[None]:
    """On the origin: names for a destination that something is wrong with, and a key that opens nothing."""
    home = bench.origin.root / "root/.ssh"
    lines = (home / "known_hosts").read_text().splitlines()
    other = next(line.split(None, 1)[1] for line in lines if line.startswith("peer"))
    (home / "config").write_text(_ALIASES)
    (home / "known_wrong").write_text(f"10.77.1.2 {other}\n")
    bench.origin.exec(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/other"])
    try:
        yield
    finally:
        for name in ("config", "known_wrong", "other", "other.pub"):
            (home / name).unlink(missing_ok=True)


@contextlib.contextmanager
def blocked_port(host: Host, port: int) -> Iterator[None]:
    """A firewall on *host* that drops what comes for *port*."""
    rules = (
        f"table inet blocked {{ chain in {{ type filter hook input priority 0; tcp dport {port} drop; }}; }}"
    )
    host.exec(["nft", "-f", "-"], input=rules)
    try:
        yield
    finally:
        host.exec(["nft", "delete", "table", "inet", "blocked"])


@contextlib.contextmanager
def stub(host: Host, text: str) -> Iterator[str]:
    """A program on *host*."""
    path = "/opt/stub"
    file = host.root / path[1:]
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    try:
        yield path
    finally:
        file.unlink()


def criu_program() -> Path:
    """The CRIU that migrate uses, on every host of the lab."""
    beside = Path(sys.executable).parent / "criu"
    found = beside if beside.exists() else shutil.which("criu")
    assert found and os.environ.get("MIGRATE_CRIU") is None and worker.program() == str(found)
    return Path(found).resolve()


@contextlib.contextmanager
def mounted_over(host: Host, path: Path, source: str = "") -> Iterator[None]:
    """The file *source*, or nothing at all, in the place of *path* on *host*."""
    what = ["--bind", source] if source else ["-t", "tmpfs", "none"]
    host.exec(["mount", *what, str(path)])
    try:
        yield
    finally:
        host.exec(["umount", str(path)])


@contextlib.contextmanager
def resized(host: Host, size: str) -> Iterator[None]:
    """The memory file systems of *host* have *size* only."""
    try:
        for place in IMAGE_PLACES:
            host.exec(["mount", "-o", f"remount,size={size}", place])
        yield
    finally:
        for place in IMAGE_PLACES:
            host.exec(["mount", "-o", "remount,size=4g", place])


@contextlib.contextmanager
def filled(host: Host) -> Iterator[None]:
    """The memory file systems of *host* have no room left; what is in them stays."""
    try:
        for place in IMAGE_PLACES:
            status = os.statvfs(f"{host.root}{place}")
            used_bytes = (status.f_blocks - status.f_bfree) * status.f_frsize
            host.exec(["mount", "-o", f"remount,size={used_bytes}", place])
        yield
    finally:
        for place in IMAGE_PLACES:
            host.exec(["mount", "-o", "remount,size=4g", place])


def session_bytes(*frames: Frame, migration_id: str = "0123456789ab") -> bytes:
    """A session as a driver would begin it, then *frames*."""
    hello = Hello(protocol=speech.NEWEST, version=VERSION, migration_id=migration_id, hostname="origin")
    return b"".join(wire.encode(frame) for frame in (Frame(hello=hello), *frames))
