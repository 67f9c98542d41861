"""What one machine is told at its start: a second first file system behind the kernel's, with a specification.

Pure. :mod:`migrate.lab.vm.guest` reads it.
"""

import json
import shlex
from pathlib import Path
from typing import Any

from migrate.lab import topology
from migrate.lab.host import PROJECT, host_files
from migrate.lab.vm import claim, cpio, network, project
from migrate.lab.vm.root import PYTHON

#: The init of a machine, and the service of one that boots systemd.
INIT = "/run/lab/init"
SYSTEMD = "/sbin/init"
DIRECTORIES = {
    "/root/.ssh": 0o700,
    "/etc/ssh": 0o755,
    "/run/sshd": 0o755,
    "/run/lock": 0o1777,
    "/usr/local/bin": 0o755,
}
_PROGRAM = "import sys; sys.path.insert(0, {!r}); from migrate.lab.vm.guest import main; sys.exit(main())"
#: Delegate and KillMode: what commands start there is theirs, and is no business of the service. Whatever kills the
#: service, it is started again, with the socket that systemd has kept for it.
_UNIT = """[Unit]
Description=This machine as a host of the lab
After=systemd-sysctl.service systemd-tmpfiles-setup.service dbus.socket
DefaultDependencies=no
Conflicts=shutdown.target
StartLimitIntervalSec=0
[Service]
ExecStart=/run/lab/serve
Restart=always
NotifyAccess=main
FileDescriptorStoreMax=1
KillMode=process
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576
OOMPolicy=continue
StandardError=journal+console
"""
_WANTED = "[Unit]\nWants=migrate-lab.service\n"


def sysctls(host: str) -> dict[str, str]:
    """Return the host's settings; those for interfaces that are to come also for those that are there already."""
    found = topology.sysctls(host)
    for key, value in list(found.items()):
        if "/conf/default/" in key:
            for leg in topology.legs_of(host):
                found[key.replace("/default/", f"/{leg.interface}/")] = value
    device = network.service_device(host)
    return found | (claim.settings(device) if device else {})


def specification(host: str, ssh_files: dict[str, tuple[int, str]]) -> dict[str, Any]:
    """Return what the guest of *host* reads."""
    packages = f"/usr/local/lib/python{PYTHON}/dist-packages"
    files = host_files(host) | ssh_files
    return {
        "hostname": host,
        "interfaces": network.interfaces(host),
        "ip": network.commands(host),
        "service_device": network.service_device(host),
        "sysctls": sysctls(host),
        "settled_sysctls": topology.settled_sysctls(host),
        "directories": DIRECTORIES | {packages: 0o755},
        "files": files | {f"{packages}/lab-project.pth": (0o644, project.import_path())},
        "links": project.links(),
        "control_address": f"{network.control_address(host)}/{network.CONTROL_BITS}",
        "control_port": network.CONTROL_PORT,
    }


def script(directory: Path, mode: str) -> str:
    """Return the program that does *mode* of the guest, in the project's *directory*, whatever its name."""
    words = [project.PYTHON, "-I", "-S", "-c", _PROGRAM.format(str(directory)), mode]
    return f"#!/bin/sh\nexec {shlex.join(words)}\n"


def archive(host: str, ssh_files: dict[str, tuple[int, str]]) -> bytes:
    """Return the archive to be put behind the kernel's first file system."""
    entries = {name: cpio.Entry(None) for name in ("lab", "lab/systemd", "lab/systemd/system")}
    entries["lab/systemd/system/multi-user.target.d"] = cpio.Entry(None)
    entries["lab/systemd/system/migrate-lab.service"] = cpio.Entry(_UNIT.encode(), 0o644)
    entries["lab/systemd/system/multi-user.target.d/lab.conf"] = cpio.Entry(_WANTED.encode(), 0o644)
    for mode in ("init", "serve"):
        entries[f"lab/{mode}"] = cpio.Entry(script(PROJECT, mode).encode())
    entries["lab/spec.json"] = cpio.Entry(json.dumps(specification(host, ssh_files)).encode(), 0o600)
    return cpio.archive(entries)
