"""What runs in a machine of the lab: it makes the machine a host of the topology, and runs the commands it is told.

As PID 1 (``init``), or as a service under systemd (``serve``); the specification is in /run/lab/spec.json. Commands
come over an interface that lives in a network namespace in which no process is, so that no program of the machine
sees it, and no link that a test cuts is missed. Its asking end is :mod:`migrate.lab.vm.client`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from migrate.lab import enter
from migrate.lab.init import MS_NODEV, MS_NOEXEC, MS_NOSUID, mount, set_sysctls, write_files
from migrate.lab.vm import claim, families
from migrate.lab.vm.worker import serve_one

SPEC = Path("/run/lab/spec.json")
#: Loaded at once: CRIU writes down what the kernel can do at its first run and does not look again.
MODULES = (
    "tun",
    "tcp_diag",
    "udp_diag",
    "unix_diag",
    "netlink_diag",
    "af_packet_diag",
    "nf_tables",
    "overlay",
)
BACKLOG = 64
SSHD = "/usr/sbin/sshd"
DEADLINE_S = 60.0
#: On the console, once commands can be run.
READY = "LAB READY"
#: Between two that serve: what kills them at once might go on to do so.
AGAIN_S = 0.1
#: The first descriptor that systemd passes on. Source: sd_listen_fds(3).
KEPT = 3


def run(*command: str, text: str | None = None) -> None:
    """Run a program that must succeed."""
    subprocess.run(command, input=text, text=True, check=True, timeout=DEADLINE_S)


def mount_all() -> None:
    """Mount what an init has to; /run is there already, and what the project lies in."""
    safe = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("proc", "/proc", "proc", safe)
    mount("sysfs", "/sys", "sysfs", safe)
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2", safe)
    mount_memory("/tmp")
    for name in ("pts", "shm", "mqueue"):
        Path("/dev", name).mkdir(exist_ok=True)
    mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "ptmxmode=0666,mode=0620,gid=5")
    mount_memory("/dev/shm")
    mount("mqueue", "/dev/mqueue", "mqueue", safe)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        if not Path("/dev", name).is_symlink():
            Path("/dev", name).symlink_to(target)


def mount_memory(directory: str) -> None:
    """Mount a file system in memory on *directory*, unless there is one: with the project in it, see first-init."""
    if not Path(directory).is_mount():
        mount("tmpfs", directory, "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")


def name_interfaces(wanted: dict[str, str]) -> None:
    """Give each interface the name in *wanted* (Ethernet address -> name).

    The kernel may have found them in another order, so a name that one is to have may be another's at first.
    """
    for path in list(Path("/sys/class/net").iterdir()):
        name = wanted.get((path / "address").read_text().strip())
        if name:
            run("ip", "link", "set", "dev", path.name, "name", f"new-{name}")
    for name in wanted.values():
        run("ip", "link", "set", "dev", f"new-{name}", "name", name)


def set_up(spec: dict[str, Any]) -> None:
    """Make this machine the host that *spec* describes: its name, files, addresses and sshd."""
    socket.sethostname(spec["hostname"])
    subprocess.run(["modprobe", "-a", "-q", *MODULES], check=False, timeout=DEADLINE_S)
    name_interfaces(spec["interfaces"])
    write_files(spec)
    set_sysctls(spec["sysctls"])
    for option, lines in families.split(spec["ip"]).items():
        run("ip", option, "-batch", "-", text="\n".join(lines) + "\n")
    if device := spec["service_device"]:
        claim.take(device)
    set_sysctls(spec["settled_sysctls"])
    if Path(SSHD).exists():  # A machine of another architecture has none.
        run(SSHD, "-E", "/var/log/sshd.log")


def listen(spec: dict[str, Any]) -> socket.socket:
    """Move the control interface into a network namespace of its own, and listen there; this process is back then.

    Nothing but the socket, and what is accepted from it, keeps that namespace.
    """
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    enter.libc.unshare(enter.CLONE_NEWNET)
    own = str(os.getpid())
    run("nsenter", f"--net=/proc/{own}/fd/{home}", "ip", "link", "set", "control", "netns", own)
    run("ip", "address", "add", spec["control_address"], "dev", "control")
    run("ip", "link", "set", "control", "up")
    listener = socket.create_server(("", spec["control_port"]), backlog=BACKLOG)
    enter.setns(home, enter.CLONE_NEWNET)
    os.close(home)
    return listener


def serve(listener: socket.socket) -> None:
    """Run commands for ever, each in a process of its own."""
    enter.be_called(b"lab keeper")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            serve_one(connection)
        connection.close()


def be_init(spec: dict[str, Any]) -> None:
    """Be PID 1: set the machine up, have another process serve, and reap what comes here.

    Who serves may be killed, by ``killall python3`` for one. The socket is ours, so another one goes on with it.
    """
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # Which the kernel does not deliver to PID 1; Python would end.
    mount_all()
    set_up(spec)
    listener = listen(spec)
    print(READY, flush=True)
    enter.be_called(b"lab keeper init")
    while True:
        serving = os.fork()
        if serving == 0:
            os.setsid()
            serve(listener)
        while os.wait()[0] != serving:
            pass
        time.sleep(AGAIN_S)


def be_service(spec: dict[str, Any]) -> None:
    """Be systemd's service, which keeps the socket for us: one that is started again goes on with it.

    Source: sd_notify(3), FDSTORE=1; sd_listen_fds(3).
    """
    if os.environ.get("LISTEN_FDS"):
        serve(socket.socket(fileno=KEPT))
    set_up(spec)
    listener = listen(spec)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.connect(os.environ["NOTIFY_SOCKET"])
        socket.send_fds(systemd, [b"FDSTORE=1"], [listener.fileno()])
    print(READY, file=sys.stderr, flush=True)
    serve(listener)


def main() -> int:
    """``init`` or ``serve``."""
    os.umask(0o022)
    os.environ.update(enter.ENVIRONMENT)
    try:
        spec = json.loads(SPEC.read_text())
        if sys.argv[1] == "init":
            be_init(spec)
        be_service(spec)
    except Exception as error:
        print(f"LAB: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        time.sleep(5)  # Before the kernel's panic, which PID 1's end is, hides it.
    return 1
