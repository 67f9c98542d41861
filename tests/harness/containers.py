"""Containers on the hosts of a lab: podman and runc with storage of each host's own, on a bridge with the peer.

Nothing comes from a registry: the image has programs of this machine's own Debian packages, and their libraries.
What a host has of it, files, mounts and processes, goes with its lab; cgroups are the kernel's, and :func:`sweep`
removes those that nobody uses, of runs that were killed too.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from migrate.lab import Host, Lab

HOSTS = ("origin", "destination")
PROGRAMS = ("redis-server", "nginx")
IMAGE = "localhost/servers"
NETWORK, BRIDGE, UPLINK = "bridged", "ctr0", "uplink0"
#: Of the containers, which are on one wire with the peer's second leg, whatever host they are on.
PREFIX = "10.99.0"
PEER = f"{PREFIX}.9"
#: The same for those with a macvlan above the host's own interface.
MACVLAN, MACVLAN_PREFIX, MACVLAN_PARENT = "macvlans", "10.98.0", "eth0"
#: Of podman's bridge on each host.
GATEWAYS = {"origin": f"{PREFIX}.1", "destination": f"{PREFIX}.2"}
REDIS = ("/usr/bin/redis-server", "--save", "", "--protected-mode", "no", "--logfile", "")
NGINX = ("/usr/sbin/nginx",)
_NGINX_CONFIGURATION = """
daemon off;
error_log /tmp/error.log;
events {}
http { access_log off; server { listen 80; location / { return 200 "served"; } } }
pid /tmp/nginx.pid;
user root;
"""
#: In each host. Podman would raise the limits of files and processes, which not every machine permits.
CONFIGURATION = """
[containers]
cgroupns = "host"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "none"
pids_limit = 0
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"
[engine.runtimes]
crun = ["/usr/local/bin/crun"]
[network]
network_backend = "netavark"
"""
#: A host of the lab has cgroups of version 2. Where the machine has some of version 1 beside them, which it does
#: not show, CRIU would make all of these anew below the container's at each restore, and dump them the next time.
CRUN_CONFIGURATION = "manage-cgroups=ignore\n"
_OURS = "lab-containers-"
#: Debian 12's is built without CRIU: `make setup-containers` gets a newer one.
CRUN = Path(sys.executable).with_name("crun")


def there_and_back(moves: int) -> Iterator[tuple[str, str]]:
    """Where each of so many moves begins, and where it ends."""
    for number in range(moves):
        yield (HOSTS[0], HOSTS[1]) if number % 2 == 0 else (HOSTS[1], HOSTS[0])


def missing() -> list[str]:
    """Programs that `make setup-containers` installs, and are not here."""
    found = {name: shutil.which(name, path="/usr/bin:/usr/sbin:/bin:/sbin") for name in ("podman", "runc")}
    return [name for name, path in found.items() if path is None] + ["crun"] * (not CRUN.exists())


def libraries(program: str) -> set[str]:
    """The files that the dynamic loader loads for *program*, and itself. Source: ldd(1)."""
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"(/\S+) \(0x", told))


def root_file_system() -> bytes:
    """A tar archive of all that a container has: the servers, what they load, and one user."""
    found = [path for name in PROGRAMS if (path := shutil.which(name, path="/usr/bin:/usr/sbin"))]
    files = set(found).union(*map(libraries, found))
    content = {"etc/passwd": b"root:x:0:0:root:/:/bin/sh\n", "etc/group": b"root:x:0:\n"}
    content["etc/nginx/nginx.conf"] = _NGINX_CONFIGURATION.encode()
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", dereference=True) as archive:
        for path in sorted(files):
            archive.add(path, arcname=path.lstrip("/"))
        for name in ("dev", "proc", "run", "sys", "tmp", "var/lib/nginx", "var/log/nginx"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(directory)
        for name, text in content.items():
            file = tarfile.TarInfo(name)
            file.size, file.mode = len(text), 0o644
            archive.addfile(file, io.BytesIO(text))
    return made.getvalue()


def sweep() -> None:
    """Remove the cgroups of containers that have ended with their lab, whichever way; those in use stay, and those
    of a lab whose tests run beside us: it may have no container at the moment."""
    for top in _hierarchies():
        for ours in top.glob(f"{_OURS}*"):
            owner = ours.name.rpartition("-")[2]
            if owner.isdigit() and int(owner) != os.getpid() and Path(f"/proc/{owner}").exists():
                continue
            for directory, _, _ in os.walk(ours, topdown=False):
                with contextlib.suppress(OSError):
                    Path(directory).rmdir()


def cgroup_parent(lab: Lab) -> str:
    """The cgroup in which those of *lab*'s containers are, so that :func:`sweep` finds them."""
    return f"/{_OURS}{lab.name}"


def cgroups_left(lab: Lab) -> list[Path]:
    """Cgroups of the containers of *lab*."""
    return [found for top in _hierarchies() if (found := top / f"{_OURS}{lab.name}").exists()]


def _hierarchies() -> list[Path]:
    return [
        Path(point)
        for _, point, kind, *_ in map(str.split, Path("/proc/mounts").read_text().splitlines())
        if kind in ("cgroup", "cgroup2")
    ]


class Containers:
    """Both hosts of *lab* with podman, the image and a bridge to the peer.

    :param apart: each has cgroups of its own, as two machines have. Else they have the same ones, and a runtime
        that removes a container here ends one of the same number there.
    """

    def __init__(self, lab: Lab, *, apart: bool = False) -> None:
        self.lab = lab
        sweep()
        for name in HOSTS if apart else ():
            own = f"/sys/fs/cgroup{cgroup_parent(lab)}/{name}"
            lab.hosts[name].exec(["sh", "-c", f"mkdir -p {own} && mount --bind {own} /sys/fs/cgroup"])
        for name in HOSTS:
            self._give_storage(lab.hosts[name])
            self._give_network(lab.hosts[name])
        for prefix in (PREFIX, MACVLAN_PREFIX):
            lab.hosts["peer"].exec(["ip", "address", "add", f"{prefix}.9/24", "dev", "eth1"])
        self._give_image()

    def _give_storage(self, host: Host) -> None:
        """A file system in memory: overlayfs takes it for the layer that is written to, and no other overlay."""
        Path(f"{host.root}/etc/containers/networks").mkdir(parents=True, exist_ok=True)
        Path(f"{host.root}/etc/containers/containers.conf").write_text(CONFIGURATION)
        Path(f"{host.root}/usr/local/bin").mkdir(parents=True, exist_ok=True)
        Path(f"{host.root}/usr/local/bin/crun").unlink(missing_ok=True)
        Path(f"{host.root}/usr/local/bin/crun").symlink_to(CRUN)
        Path(f"{host.root}/etc/criu").mkdir(exist_ok=True)
        Path(f"{host.root}/etc/criu/crun.conf").write_text(CRUN_CONFIGURATION)
        Path(f"{host.root}/var/lib/containers").mkdir(parents=True, exist_ok=True)
        host.exec(["mount", "-t", "tmpfs", "-o", "size=4g", "containers", "/var/lib/containers"])

    def _give_network(self, host: Host) -> None:
        segment = self.lab.hosts["segment"]
        port = f"ctr-{host.name}"[:15]
        pair = ["link", "add", port, "type", "veth", "peer", "name", UPLINK, "netns", str(host.init.pid)]
        subprocess.run(["nsenter", f"--net={segment.netns}", "ip", *pair], check=True)
        segment.exec(["ip", "link", "set", port, "master", "servers", "up"])
        for words in (
            f"add {BRIDGE} type bridge",
            f"set {UPLINK} master {BRIDGE} up",
            f"set {BRIDGE} up",
        ):
            host.exec(["ip", "link", *words.split()])
        network = {
            "name": NETWORK,
            "id": "b" * 64,
            "driver": "bridge",
            "network_interface": BRIDGE,
            "created": "2026-01-01T00:00:00Z",
            "subnets": [{"subnet": f"{PREFIX}.0/24", "gateway": GATEWAYS[host.name]}],
            "ipv6_enabled": False,
            "internal": True,
            "dns_enabled": False,
            "ipam_options": {"driver": "host-local"},
        }
        Path(f"{host.root}/etc/containers/networks/{NETWORK}.json").write_text(json.dumps(network))
        options = ["-d", "macvlan", "-o", f"parent={MACVLAN_PARENT}", "--subnet", f"{MACVLAN_PREFIX}.0/24"]
        host.exec(["podman", "network", "create", *options, MACVLAN])

    def _give_image(self) -> None:
        """The same to both: podman restores a container only where its image has the ID that it had."""
        origin, destination = (self.lab.hosts[name] for name in HOSTS)
        Path(f"{origin.root}/root/image.tar").write_bytes(root_file_system())
        origin.exec(["podman", "import", "-q", "/root/image.tar", IMAGE])
        origin.exec(["podman", "save", "-q", "-o", "/root/saved.tar", IMAGE])
        shutil.copy(f"{origin.root}/root/saved.tar", f"{destination.root}/root/saved.tar")
        destination.exec(["podman", "load", "-q", "-i", "/root/saved.tar"])
        for host in (origin, destination):
            for name in ("image.tar", "saved.tar"):
                Path(f"{host.root}/root/{name}").unlink(missing_ok=True)

    def run(
        self,
        host: str,
        name: str,
        number: int,
        command: Sequence[str],
        *options: str,
        network: str = NETWORK,
        runtime: str = "runc",
    ) -> str:
        """Start *command* in a container; its address, whose last byte is *number*, is the same on each host."""
        address = f"{PREFIX if network == NETWORK else MACVLAN_PREFIX}.{number}"
        where = ["--network", network, "--ip", address, "--mac-address", f"02:00:00:00:00:{number:02x}"]
        parent = ["--cgroup-parent", cgroup_parent(self.lab)]
        podman = ["podman", "--runtime", runtime, "run", "-d", "--name", name]
        self.lab.hosts[host].exec([*podman, *where, *parent, *options, IMAGE, *command])
        return address

    def move(
        self, name: str, here: str, there: str, change: Callable[[Path], object] = lambda archive: None
    ) -> None:
        """As podman's users do it: an archive here, none of it left here, the archive there, restored.

        :param change: gets the archive on its way.
        """
        origin, destination = self.lab.hosts[here], self.lab.hosts[there]
        archive = f"/root/{name}.tar"
        words = ["--tcp-established", "--compress=none"]
        origin.exec(["podman", "container", "checkpoint", f"--export={archive}", *words, name])
        origin.exec(["podman", "rm", name])
        shutil.move(f"{origin.root}{archive}", f"{destination.root}{archive}")
        change(Path(f"{destination.root}{archive}"))
        destination.exec(["podman", "container", "restore", f"--import={archive}", "--tcp-established"])
        Path(f"{destination.root}{archive}").unlink()

    def root_process(self, host: str, name: str) -> int:
        """The PID of the container's first process, as *host* numbers it."""
        words = ["podman", "inspect", "--format", "{{.State.Pid}}", name]
        return int(self.lab.hosts[host].exec(words).stdout)

    def inside(self, host: str, name: str, *command: str) -> str:
        """What *command*, a program of the host, says in the container's network."""
        enter = ["nsenter", f"--net=/proc/{self.root_process(host, name)}/ns/net"]
        return self.lab.hosts[host].exec([*enter, *command]).stdout

    def names(self, host: str, *, every: bool = False) -> list[str]:
        """Those that run on *host*, or *every* one that podman knows there, as podman tells them."""
        words = ["podman", "ps", *["--all"] * every, "--format", "{{.Names}}"]
        return self.lab.hosts[host].exec(words).stdout.split()

    def remove_all(self) -> None:
        """End and forget all containers on both hosts."""
        for name in HOSTS:
            self.lab.hosts[name].exec(["podman", "rm", "-fa", "-t", "0"], check=False)
