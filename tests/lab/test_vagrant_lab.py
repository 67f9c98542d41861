"""The lab in which `make vagrant-test` has its machines ends with it, and has nothing of this machine's libvirt."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.wait import eventually

from migrate.lab import Lab, state

VAGRANT = Path(__file__).resolve().parents[2] / "vagrant"
#: As vagrant/test.py does it.
HOLDS = """
import sys
sys.path.insert(0, sys.argv[1])
from libvirt_lab import own_lab
with own_lab() as lab:
    print(lab.name, flush=True)
    lab.hosts["segment"].exec(["sleep", "1234"], timeout=600)
"""
LEFT = f"import sys; sys.path.insert(0, {str(VAGRANT)!r}); import libvirt_lab; libvirt_lab.remove_left()"
DOMAIN = """<domain type='qemu'><name>of-this-machine</name><memory unit='MiB'>64</memory>
<os><type arch='x86_64'>hvm</type></os></domain>
"""
NETWORK = "<network><name>of-this-machine</name><ip address='10.9.8.1' netmask='255.255.255.0'/></network>\n"
#: What the package leaves, or an administrator: to be started by the next libvirtd.
FOREIGN = f"""
set -e
mkdir -p /etc/libvirt/qemu/autostart /etc/libvirt/qemu/networks/autostart
cd /etc/libvirt/qemu
cat >of-this-machine.xml <<'END'
{DOMAIN}END
cat >networks/of-this-machine.xml <<'END'
{NETWORK}END
ln -s "$PWD/of-this-machine.xml" autostart/
ln -s "$PWD/networks/of-this-machine.xml" networks/autostart/
"""


@contextmanager
def holder() -> Iterator[tuple[subprocess.Popen[str], Lab]]:
    """A process that holds such a lab, and the lab."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS, VAGRANT], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lab = Lab(process.stdout.readline().strip())
        eventually(lambda: _sleeps(lab), "its host is in use")
        yield process, lab
    finally:
        process.kill()
        process.communicate()
        lab.down()


def _sleeps(lab: Lab) -> bool:
    return lab.hosts["segment"].exec(["pgrep", "-f", "^sleep 1234"], check=False).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_lab_and_a_second_one_does_not_break_that_off(number: signal.Signals) -> None:
    with holder() as (process, lab):
        inits = state.load(lab.directory)
        for _ in range(5):
            process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert not lab.directory.exists()
        assert inits and not any(init.alive() for init in inits.values())


def test_what_a_killed_one_has_left_goes_with_the_next() -> None:
    with holder() as (living, lives), holder() as (process, lab):
        process.kill()
        process.wait(60)
        assert lab.is_up()
        subprocess.run([sys.executable, "-c", LEFT], check=True, timeout=60)
        assert not lab.directory.exists()
        assert lives.is_up() and living.poll() is None


@pytest.mark.skipif(not shutil.which("libvirtd"), reason="libvirt is not installed")
def test_what_libvirt_of_this_machine_has_is_neither_seen_nor_started() -> None:
    sys.path.insert(0, str(VAGRANT))
    from libvirt_lab import VIRSH, start_libvirt

    with Lab(f"libvirt-{os.getpid()}") as lab:
        host = lab.hosts["segment"]
        host.exec(["sh", "-c", FOREIGN])
        start_libvirt(host)
        for words in (["list", "--all", "--name"], ["net-list", "--all", "--name"]):
            assert host.exec([*VIRSH, *words]).stdout.strip() == "", words
        assert "10.9.8.1" not in host.exec(["ip", "address"]).stdout
