"""One host being built: what init.py is told, and the process that runs it.

A host under construction ends by itself when its builder goes away: see init.py.
"""

import contextlib
import json
import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from migrate.lab import sshd, topology
from migrate.lab.enter import start_ticks
from migrate.lab.errors import LabError
from migrate.lab.state import Init

INIT = Path(__file__).with_name("init.py")
PROJECT = Path(__file__).resolve().parents[2]
#: Directories that are a host's own from the start, so nothing of the machine shows through.
COVERED = ("/proc", "/sys", "/dev", "/run", "/tmp")
COMMANDS = ("migrate", "migrate-agent", "migrate-lab", "tcpcp", "criu", "crit", "compel")
#: How proc(5) writes blanks in paths.
OCTAL = re.compile(rb"\\([0-3][0-7]{2})")
#: Bound of each tmpfs of a host; images of a few gigabytes pass through them.
TMPFS_SIZE = "4g"


class Spec(NamedTuple):
    """What init.py needs to know to build a host."""

    lab: str
    hostname: str
    scratch: str
    """Empty directory, in the run directory, over which the host's private tmpfs is mounted."""
    size: str
    """Size of each tmpfs, as mount(8) takes it."""
    sysctls: dict[str, str]
    """Path below /proc/sys (a "?" at its end: optional) -> value."""
    hidden: list[str]
    """Directories that are empty in the host."""
    binds: list[str]
    """Directories of the machine that appear read-only at the same path."""
    directories: dict[str, int]
    """Path -> mode."""
    files: dict[str, tuple[int, str]]
    """Path -> (mode, text)."""
    links: dict[str, str]
    """Path -> target of a symbolic link."""


def mount_points() -> list[Path]:
    """Return the machine's mount points. Source: proc(5), /proc/pid/mountinfo."""
    return mount_points_in(Path("/proc/self/mountinfo").read_bytes())


def mount_points_in(mountinfo: bytes) -> list[Path]:
    """The same from the content of that file, in which blanks and line feeds of names are written otherwise."""
    fields = [line.split(b" ")[4] for line in mountinfo.split(b"\n") if line.count(b" ") > 4]
    return [Path(os.fsdecode(OCTAL.sub(lambda found: bytes([int(found[1], 8)]), field))) for field in fields]


def binds() -> list[str]:
    """Return what a host must see of the machine that its overlay over / would not show, or not fresh.

    The project itself always: see :func:`migrate.lab.init.bind_read_only`. The interpreter and /usr
    where they lie on a file system of their own or in a directory that each host has for itself.
    """
    elsewhere = [point for point in mount_points() if point != Path("/")] + [Path(path) for path in COVERED]
    wanted = [Path(path).resolve() for path in (sys.prefix, sys.base_prefix, "/usr")]
    found = [path for path in wanted if any(path.is_relative_to(point) for point in elsewhere)]
    chosen: list[Path] = []
    for path in sorted({PROJECT, *found}, key=lambda path: len(path.parts)):
        if not any(path.is_relative_to(other) for other in chosen):
            chosen.append(path)
    return [str(path) for path in chosen]


def command_links() -> dict[str, str]:
    """Return links that put the project's commands on a host's PATH, also those that setup makes later."""
    programs = Path(sys.executable).parent
    if programs in (Path("/usr/bin"), Path("/usr/local/bin"), Path("/bin")):
        return {}
    found = {path.name for pattern in ("migrate*", "tcpcp*", "criu*") for path in programs.glob(pattern)}
    return {f"/usr/local/bin/{name}": str(programs / name) for name in sorted(found.union(COMMANDS))}


def host_files(host: str) -> dict[str, tuple[int, str]]:
    """Return files every host has: names, no resolver, and a login that is not slowed by the machine's."""
    return {
        "/etc/hostname": (0o644, f"{host}\n"),
        "/etc/hosts": (0o644, topology.hosts_file(host)),
        "/etc/resolv.conf": (0o644, ""),
        "/root/.bashrc": (0o644, "PS1='\\u@\\h:\\w\\$ '\n"),
        "/root/.profile": (0o644, ""),
        "/root/.bash_profile": (0o644, "[ -r ~/.bashrc ] && . ~/.bashrc\n"),
    }


def make_spec(lab: str, host: str, run_directory: Path, ssh_files: dict[str, tuple[int, str]]) -> Spec:
    """Return the specification of *host* of *lab*, whose scratch directory is made here."""
    scratch = run_directory / host
    scratch.mkdir()
    return Spec(
        lab=lab,
        hostname=host,
        scratch=str(scratch),
        size=TMPFS_SIZE,
        sysctls=topology.sysctls(host),
        hidden=[*sshd.HIDDEN, "/var/log/migrate"],
        binds=binds(),
        directories={"/root/.ssh": 0o700, "/etc/ssh": 0o755, "/run/sshd": 0o755, "/run/lock": 0o1777},
        files=host_files(host) | ssh_files,
        links=command_links(),
    )


class Builder:
    """The building of one host. After :meth:`start` the host ends with the builder, until :meth:`go`."""

    def __init__(self, spec: Spec, deadline: float) -> None:
        """*deadline*: on the monotonic clock, for all that is awaited here."""
        self.host = spec.hostname
        self.deadline = deadline
        self.buffer = b""
        command = [sys.executable, "-I", "-S", str(INIT), "build", spec.hostname, spec.lab]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self._write(json.dumps(spec._asdict()).encode() + b"\n")

    def init(self) -> Init:
        """Return PID 1 of the host; its network namespace exists, its root is being built."""
        pid = int(self._event()["pid"])
        ticks = start_ticks(pid)
        self.process.wait(max(0.1, self.deadline - time.monotonic()))
        if ticks is None:
            self._event()  # Says why it ended.
            raise LabError(f"{self.host}: init ended")
        return Init(pid, ticks)

    def wait_ready(self) -> None:
        """Wait until the host can be entered."""
        self._event()

    def go(self) -> None:
        """Let the host live on without us."""
        self._write(b"go\n")
        self.close()

    def close(self) -> None:
        """Let go of the host; before :meth:`go` this ends it, and its end is awaited.

        Its output reaches its end when the last of its processes has ended or let go of it.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        if not self.process.stdout.closed:
            with contextlib.suppress(LabError):
                while True:
                    self._event()
            self.process.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)

    def _write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        try:
            while data:
                data = data[os.write(self.process.stdin.fileno(), data) :]
        except BrokenPipeError:
            raise LabError(f"{self.host}: init ended early") from None

    def _event(self) -> dict[str, Any]:
        """Return the next event; an error, the end or the deadline is raised as LabError."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        while b"\n" not in self.buffer:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(max(0.0, self.deadline - time.monotonic()) * 1000):
                raise LabError(f"{self.host}: not built before the deadline")
            data = os.read(descriptor, 65536)
            if not data:
                raise LabError(f"{self.host}: init ended without a word")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        event: dict[str, Any] = json.loads(line)
        if "error" in event:
            raise LabError(f"{self.host}: {event['error']}")
        return event
