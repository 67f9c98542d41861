"""Where ``make vagrant-test`` has its machines: a host of a lab of namespaces, with a libvirt of its own.

The lab ends with the test: also by a signal, and after a ``kill -9``, which nobody can act on, with the next test.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from migrate.lab import Host, Lab, enter, state

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from harness.wait import eventually  # noqa: E402

ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
#: Whose lab it is: PID and start time of the process that made it.
NAME = re.compile(r"vagrant-(\d+)-(\d+)")
QEMU_CONF = 'user = "root"\ngroup = "root"\nremember_owner = 0\nnamespaces = []\nsecurity_driver = "none"\n'
#: What the package libvirt-daemon-system would make, and the two daemons. The host sees this machine's files, so
#: what this machine's libvirt has, and may have been told to start by itself, is covered.
LIBVIRT = """
set -e
mkdir -p /etc/libvirt /var/lib/libvirt
mount -t tmpfs -o mode=0755 lab /etc/libvirt
mount -t tmpfs -o mode=0755 lab /var/lib/libvirt
cat >/etc/libvirt/qemu.conf
getent group kvm >/dev/null || groupadd -r kvm
getent group libvirt-qemu >/dev/null || groupadd -r libvirt-qemu
id libvirt-qemu >/dev/null 2>&1 || useradd -r -g kvm libvirt-qemu
mkdir -p /run/libvirt /var/log/libvirt/qemu /var/lib/libvirt/images /var/cache/libvirt/qemu
virtlogd -d
libvirtd -d
"""
VIRSH = ("virsh", "-q", "-c", "qemu:///system")
START_DEADLINE_S = 900.0


@contextlib.contextmanager
def own_lab() -> Iterator[Lab]:
    """A ``with`` block in which a lab of this process is up; what a killed one has left is removed first.

    SIGTERM, SIGINT and SIGHUP end the block, and this process with it; another one while the lab is brought down
    changes nothing.
    """
    remove_left()
    lab = Lab(f"vagrant-{os.getpid()}-{enter.start_ticks(os.getpid())}")
    for number in ENDING:
        signal.signal(number, _leave)
    try:
        lab.up()
        yield lab
    finally:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        lab.down()


def _leave(number: int, _frame: FrameType | None) -> None:
    # At once: who presses Ctrl-C twice, or is told by make besides, is not to break the end off.
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def remove_left() -> None:
    """Bring down the labs whose owner is gone."""
    for path in state.BASE.glob("vagrant-*"):
        owner = NAME.fullmatch(path.name)
        if owner and not state.Init(int(owner[1]), int(owner[2])).alive():
            Lab(path.name).down()


def start_libvirt(host: Host) -> None:
    """Start libvirt's daemons in *host*, with no help of systemd; users, directories and settings are its alone."""
    host.exec(["sh", "-c", LIBVIRT], input=QEMU_CONF)
    eventually(
        lambda: host.exec([*VIRSH, "version"], check=False).returncode == 0,
        lambda: host.exec(["cat", "/var/log/libvirt/libvirtd.log"], check=False).stdout,
        START_DEADLINE_S,
        pause_s=0.5,
    )
    host.exec([*VIRSH, "pool-define-as", "default", "dir", "--target", "/var/lib/libvirt/images"])
    host.exec([*VIRSH, "pool-start", "default"])
