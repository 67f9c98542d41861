"""Whether CRIU works here: dump and restore a small process with a TCP connection, and use it.

``criu check`` is not enough: a CRIU that does not know this kernel can pass it and fail every dump
with a socket. ``python -m migrate.criu.probe CRIU`` prints what is wrong and exits with 1, or exits with 0.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from migrate import limits, place, problems
from migrate.criu.worker import Options, program, worker
from migrate.errors import CriuError

CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
#: Results are kept here until the next boot, one file per program and kernel.
CACHE = Path("/run/migrate/probe")


def problem(binary: str | None = None) -> str:
    """What keeps *binary* from working on this host, as a sentence; "" when it works.

    Takes about 0.3 s the first time after a boot and nothing later. Never raises for a CRIU that fails.
    """
    path = binary or program()
    if path is None:
        return "CRIU is not installed"
    cached = _cache_file(path)
    if cached is not None and cached.exists():
        return ""
    command = [sys.executable, "-m", "migrate.criu.probe", path]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limits.PROBE_S, cwd="/")
    except subprocess.TimeoutExpired:
        return f"CRIU did not finish a small dump and restore in {limits.PROBE_S:g} s"
    if done.returncode:
        return (done.stdout.strip() or done.stderr.strip() or "unknown").splitlines()[-1]
    if cached is not None:
        cached.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        cached.touch()
    return ""


def _cache_file(path: str) -> Path | None:
    try:
        status = Path(path).resolve().stat()
    except OSError:
        return None
    return CACHE / f"{status.st_dev:x}-{status.st_ino:x}-{status.st_mtime_ns:x}-{os.uname().release}"


def _echo(connection: socket.socket) -> None:
    """The process that is dumped: one connection, no other descriptor."""
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    kept = connection.detach()
    os.closerange(3, kept)
    os.closerange(kept + 1, 1024)
    while data := os.read(kept, 100):
        os.write(kept, data)
    os._exit(0)


def _connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname(), timeout=limits.PROBE_S)
        theirs, _ = server.accept()
    return ours, theirs


def _loopback_up() -> None:
    """Source: netdevice(7), SIOCSIFFLAGS and struct ifreq."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        fcntl.ioctl(asking, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))


def _round_trip(connection: socket.socket, what: str) -> None:
    connection.sendall(b"probe")
    if connection.recv(100) != b"probe":
        raise CriuError(f"the probe's connection was dead {what}")


def run(binary: str) -> None:
    """Do it, in a network namespace of our own.

    :raises CriuError, OSError: what failed; nothing is left behind.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET) needs root")
    _loopback_up()
    ours, theirs = _connected()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _echo(theirs)
    theirs.close()
    try:
        _round_trip(ours, "before the dump")
        with tempfile.TemporaryDirectory(prefix="criu-probe-", dir=_room()) as directory:
            _move(binary, pid, Path(directory))
            _round_trip(ours, "after the restore")
    finally:
        _end(pid)


def _room() -> Path:
    """Where there is most of it, on disk or in memory: a place that is full says nothing of CRIU."""
    places = [Path(tempfile.gettempdir())]
    with contextlib.suppress(FileNotFoundError):  # without a tmpfs nothing can be moved, and that is told
        places.append(place.image_root())
    return max(places, key=lambda one: shutil.disk_usage(one).free)


def _with_connections(opts: Any) -> None:
    """CRIU carries them itself; a migration has it leave them alone."""
    opts.tcp_close, opts.tcp_established = False, True


def _move(binary: str, pid: int, images: Path) -> None:
    options = Options(images, "dump.log", timeout_s=int(limits.PROBE_S) // 3, more=_with_connections)
    with worker(binary) as dumper:
        for _ in dumper.dump(pid, options):
            pass
    os.waitpid(pid, 0)
    with worker(binary) as restorer:
        for _ in restorer.restore(Options(images, "restore.log", timeout_s=int(limits.PROBE_S) // 3)):
            pass


def _end(pid: int) -> None:
    """Kill the probe's process, dumped (our child) or restored (CRIU's), and wait until it is gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        deadline = time.monotonic() + 5
        import select

        select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return
    finally:
        os.close(handle)


def main() -> int:
    """``python -m migrate.criu.probe [CRIU]``."""
    binary = sys.argv[1] if len(sys.argv) > 1 else program()
    if binary is None:
        print("CRIU is not installed")
        return 1
    try:
        run(binary)
    except (CriuError, OSError) as error:
        print("\n".join([*problems.of(error).details, str(error)]))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
