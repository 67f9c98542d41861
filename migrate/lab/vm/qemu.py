"""The command line of one machine.

Pure. Source: qemu-system-x86_64(1). Measured with QEMU 7.2's TCG: with cmpxchg16b a Linux guest panics at random,
so that feature is hidden from guests there.
"""

import time
from pathlib import Path
from typing import NamedTuple

PROGRAM = "qemu-system-x86_64"
#: Of each machine; what it does not touch is not taken.
MEMORY_MB = 1024
#: Kernel's words: no colours of boot, no mitigations, which TCG does not need, and interfaces called eth0, eth1.
WORDS = (
    "console=ttyS0 quiet loglevel=4 audit=0 mitigations=off net.ifnames=0 panic=0"
    " lab.init={init} lab.project={project}"
)
CPUS = {"tcg": "max,-cx16", "kvm": "host"}
ACCELERATORS = {"tcg": "tcg,thread=multi,tb-size=256", "kvm": "kvm"}


class Machine(NamedTuple):
    """What one machine is made of.

    :ivar taps: name and Ethernet address of each interface.
    :ivar first: its first file system.
    :ivar disks: path and whether it is written to; the root comes first.
    :ivar accelerator: ``kvm`` or ``tcg``.
    :ivar cpu: QEMU's name of a model; "": the best there is.
    :ivar clock_s: by how many seconds its clock is ahead.
    :ivar run: directory for its console and control.
    """

    name: str
    kernel: Path
    first: Path
    words: str
    disks: tuple[tuple[Path, bool], ...]
    taps: tuple[tuple[str, str], ...]
    run: Path
    accelerator: str = "tcg"
    cpu: str = ""
    clock_s: int = 0
    memory_mb: int = MEMORY_MB


def words(init: str, project: Path) -> str:
    """Return the kernel's command line. *init*: program and words, with blanks."""
    return WORDS.format(init=init, project=project)


def model(accelerator: str, cpu: str) -> str:
    """Return QEMU's name of the processor; under TCG always without cmpxchg16b."""
    if not cpu:
        return CPUS[accelerator]
    return cpu + (",-cx16" if accelerator == "tcg" else "")


def clock(ahead_s: int, now: float) -> str:
    """Return what -rtc takes for a clock that is *ahead_s* ahead of *now*, seconds since the epoch."""
    if not ahead_s:
        return "base=utc"
    return "base=" + time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now + ahead_s))


def arguments(machine: Machine, now: float) -> list[str]:
    """Return the command that runs *machine* until it is switched off or killed.

    :param now: seconds since the epoch, for a clock that differs.
    """
    command = [
        PROGRAM,
        "-name",
        machine.name,
        "-M",
        "q35",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
    ]
    command += ["-accel", ACCELERATORS[machine.accelerator], "-cpu", model(machine.accelerator, machine.cpu)]
    command += ["-m", str(machine.memory_mb), "-smp", "1", "-rtc", clock(machine.clock_s, now)]
    command += ["-kernel", str(machine.kernel), "-initrd", str(machine.first), "-append", machine.words]
    command += ["-serial", f"file:{machine.run / 'console'}"]
    command += ["-qmp", f"unix:{machine.run / 'qmp'},server=on,wait=off"]
    for path, written in machine.disks:
        kind = "format=qcow2,cache=unsafe" if written else "format=raw,readonly=on"
        command += ["-drive", f"file={path},if=virtio,{kind}"]
    for number, (tap, address) in enumerate(machine.taps):
        command += ["-netdev", f"tap,id=n{number},ifname={tap},script=no,downscript=no"]
        command += ["-device", f"virtio-net-pci,netdev=n{number},mac={address},romfile="]
    return [*command, "-device", "virtio-rng-pci"]
