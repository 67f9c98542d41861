"""Builds one host of the lab around itself, then is that host's init process.

A program of its own, run by path (``python -I -S init.py build HOST LAB``): it imports nothing of the
project, since PID 1 of four hosts should be small. Its caller writes a line of JSON
(:class:`migrate.lab.host.Spec`) to its standard input and reads lines of JSON from its output:
``{"pid": n}`` as soon as the namespaces exist, then ``{"ready": true}`` or ``{"error": text}``. If then
anything but the line ``go`` follows, the end of file included, the host ends: a caller killed halfway
leaves nothing.

All that is mounted is mounted in the host's own mount namespace, so the death of PID 1 removes it.
Source: pivot_root(2) for ``pivot_root(".", ".")``, mount_namespaces(7), pid_namespaces(7).
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import stat
import sys
from pathlib import Path
from typing import Any

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
CLONE_NEWCGROUP = 0x2000000
NAMESPACES = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP

DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
    "net/tun": (10, 200),
    "kvm": (10, 232),  # for the segment of a lab of machines
}
DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Raise OSError with errno if a call into libc returned *result* < 0; *what* names it."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2); raises OSError that names what was mounted where."""
    words = (os.fsencode(source), os.fsencode(target), kind.encode() or None)
    outcome = libc.mount(*words, ctypes.c_ulong(flags), data.encode() or None)
    check(outcome, f"mount {kind or source} on {target}")


def report(**event: object) -> None:
    """Tell the caller one event."""
    os.write(1, json.dumps(event).encode() + b"\n")


def set_sysctls(values: dict[str, str]) -> None:
    """Write *values* below /proc/sys; a key that ends in "?" may be unknown to the kernel."""
    for key, value in values.items():
        path = Path("/proc/sys", key.rstrip("?"))
        if path.exists() or not key.endswith("?"):
            path.write_text(value)


def hide(upper: Path, directory: str) -> None:
    """Put an empty *directory* into *upper* that shows nothing of the machine's one.

    Source: Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
    """
    real = Path(directory).parent.resolve() / Path(directory).name
    for parent in reversed(real.parents[:-1]):
        made = upper / parent.relative_to("/")
        made.mkdir(exist_ok=True)
        made.chmod(stat.S_IMODE(parent.stat().st_mode))
    made = upper / real.relative_to("/")
    made.mkdir(mode=0o700)
    os.setxattr(made, "trusted.overlay.opaque", b"y")


def mount_overlay(scratch: str, size: str, hidden: list[str]) -> str:
    """Mount a private tmpfs on *scratch* and in it the host's root; return the root's path."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("tmpfs", scratch, "tmpfs", data=f"mode=0755,size={size}")
    upper, work, root = (Path(scratch, name) for name in ("upper", "work", "root"))
    for directory in (upper, work, root):
        directory.mkdir(mode=0o755)
    for directory_name in hidden:
        hide(upper, directory_name)
    try:
        mount("overlay", str(root), "overlay", data=f"lowerdir=/,upperdir={upper},workdir={work}")
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: the lab needs overlayfs over / with a tmpfs") from None
    return str(root)


def mount_pseudo(size: str) -> None:
    """Mount the file systems that belong to a host alone, over an already pivoted root."""
    safe = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("proc", "/proc", "proc", safe)
    mount("sysfs", "/sys", "sysfs", safe)
    mount_cgroups()
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, f"mode=0755,size={size}")
    mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"mode=1777,size={size}")
    mount("tmpfs", "/dev", "tmpfs", MS_NOSUID, "mode=0755,size=4m")
    for name in ("pts", "shm", "mqueue", "net"):
        Path("/dev", name).mkdir()
    mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, f"mode=1777,size={size}")
    mount("mqueue", "/dev/mqueue", "mqueue", safe)


def mount_cgroups() -> None:
    """Mount the cgroups (v2) below the one that the lab was built in, if the machine lets us.

    In a cgroup namespace of our own a mount leaves the options of the machine's mount alone. Controllers are the
    machine's business; a host of the lab needs the freezer, which every cgroup has.
    """
    with contextlib.suppress(OSError):
        mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def make_devices() -> None:
    """Fill /dev."""
    for name, (major, minor) in DEVICES.items():
        os.mknod(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
        Path("/dev", name).chmod(0o666)
    for name, target in DEVICE_LINKS.items():
        Path("/dev", name).symlink_to(target)


def bind_read_only(sources: dict[str, int]) -> None:
    """Bind directories of the machine to the same path here; *sources*: path -> O_PATH descriptor.

    The old root must still be attached. A read-only bind, not the overlay, because an overlay may go on
    showing a file as it was before somebody on the machine replaced it.
    """
    for path, descriptor in sources.items():
        Path(path).mkdir(parents=True, exist_ok=True)
        mount(f"/proc/self/fd/{descriptor}", path, flags=MS_BIND | MS_REC)
        mount("none", path, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)
        os.close(descriptor)


def write_files(spec: dict[str, Any]) -> None:
    """Make the host's own directories, files and links; what is in the way of one goes."""
    for path, mode in spec["directories"].items():
        Path(path).mkdir(parents=True, exist_ok=True)
        Path(path).chmod(mode)
    for path, (mode, text) in spec["files"].items():
        # Never through a symbolic link: resolv.conf often is one, into a directory that is not here.
        with contextlib.suppress(FileNotFoundError):
            Path(path).unlink()
        Path(path).write_text(text)
        Path(path).chmod(mode)
    for path, target in spec["links"].items():
        with contextlib.suppress(FileNotFoundError):
            Path(path).unlink()
        Path(path).symlink_to(target)


def build(spec: dict[str, Any]) -> None:
    """Give this process, PID 1 of fresh namespaces, its host's root, name and files."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Inherited by the init below: the kernel reaps.
    socket.sethostname(spec["hostname"])
    root = mount_overlay(spec["scratch"], spec["size"], spec["hidden"])
    sources = {path: os.open(path, os.O_PATH) for path in spec["binds"]}
    old_root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    os.chdir(root)
    check(libc.pivot_root(b".", b"."), "pivot_root")
    os.chdir("/")
    mount_pseudo(spec["size"])
    bind_read_only(sources)
    os.fchdir(old_root)
    check(libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.close(old_root)
    os.chdir("/")
    make_devices()
    write_files(spec)


def start() -> None:
    """Unshare, build the host as its PID 1, and execute this file anew as its init."""
    spec = json.loads(sys.stdin.buffer.readline())
    os.setsid()
    os.umask(0o022)
    check(libc.unshare(NAMESPACES), "unshare (root is needed)")
    set_sysctls(spec["sysctls"])
    pid = os.fork()
    if pid:
        report(pid=pid)
        return
    build(spec)
    os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, "hold", spec["hostname"], spec["lab"]])


def hold() -> None:
    """Be a host's init until SIGTERM, or until the caller is gone before it said ``go``.

    The order to ignore SIGCHLD came through exec, so children are reaped by the kernel at once.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    report(ready=True)
    if os.read(0, 64) != b"go\n":
        return
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.closerange(3, 65536)
    signal.sigwait({signal.SIGTERM})


def main() -> None:
    """Run as ``init.py build HOST LAB``, then ``init.py hold HOST LAB``; the names are for ps to show."""
    try:
        start() if sys.argv[1] == "build" else hold()
    except Exception as error:
        with contextlib.suppress(OSError):  # The caller may be gone.
            report(error=f"{type(error).__name__}: {error}")
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
