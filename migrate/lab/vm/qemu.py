"""The command line of one machine.

Pure. Source: qemu-system-x86_64(1). Measured with QEMU 7.2's TCG: with cmpxchg16b a Linux guest panics at random,
so that feature is hidden from guests there.
"""

import time
from pathlib import Path
from typing import NamedTuple

from migrate.lab.errors import LabError

#: Of each machine; what it does not touch is not taken.
MEMORY_MB = 1024
#: Kernel's words: no colours of boot, no mitigations, which TCG does not need, and interfaces called eth0, eth1.
WORDS = (
    "console={console} quiet loglevel=4 audit=0 mitigations=off net.ifnames=0 panic=0"
    " lab.init={init} lab.project={project}"
)
#: A disk. What is written is in memory, where there is room for all of it: machines.DISKS. If there were none the
#: machine would hear of an error; QEMU would stop it without a word.
READ = "format=raw,readonly=on"
WRITTEN = "format=qcow2,cache=unsafe,werror=report,discard=unmap,detect-zeroes=unmap"
#: The year 2100, in seconds since the epoch: an x86's clock has two digits for the year.
CLOCK_ENDS = 4_102_444_800
ACCELERATORS = {"tcg": "tcg,thread=multi,tb-size=256", "kvm": "kvm"}


class Architecture(NamedTuple):
    """How QEMU has machines of one of Debian's architectures.

    :ivar emulated: the processor without KVM.
    :ivar network, random: its devices.
    :ivar serial: what makes a serial line of the character device ``console``; empty: ``-serial`` does.
    """

    program: str
    board: str
    emulated: str
    console: str
    network: str
    random: str
    serial: str = ""


_PCI = ("virtio-net-pci,romfile=", "virtio-rng-pci")
ARCHITECTURES = {
    "amd64": Architecture("qemu-system-x86_64", "q35", "max,-cx16", "ttyS0", *_PCI),
    "arm64": Architecture("qemu-system-aarch64", "virt", "max", "ttyAMA0", *_PCI),
    "s390x": Architecture(
        *("qemu-system-s390x", "s390-ccw-virtio", "max", "ttysclp0"),
        *("virtio-net-ccw", "virtio-rng-ccw", "sclpconsole,chardev=console"),
    ),
}
#: Of machines without a wish.
OWN = "amd64"
PROGRAM = ARCHITECTURES[OWN].program


class Machine(NamedTuple):
    """What one machine is made of.

    :ivar taps: name and Ethernet address of each interface.
    :ivar first: its first file system.
    :ivar disks: path and whether it is written to; the root comes first.
    :ivar accelerator: ``kvm`` or ``tcg``.
    :ivar cpu: QEMU's name of a model; "": the best there is.
    :ivar clock_s: by how many seconds its clock is ahead.
    :ivar image: on which the root lies.
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
    architecture: str = OWN
    image: Path | None = None


def words(init: str, project: Path, architecture: str = OWN) -> str:
    """Return the kernel's command line. *init*: the program.

    :raises LabError: the project's path has blanks, which end a word there.
    """
    if len(str(project).split()) != 1:
        raise LabError(f"{project}: machines cannot have the project at a path with blanks in it")
    return WORDS.format(init=init, project=project, console=ARCHITECTURES[architecture].console)


def model(accelerator: str, cpu: str, architecture: str = OWN) -> str:
    """Return QEMU's name of the processor; an x86's without cmpxchg16b where it is emulated."""
    if not cpu:
        return "host" if accelerator == "kvm" else ARCHITECTURES[architecture].emulated
    return cpu + (",-cx16" if accelerator == "tcg" and architecture == OWN else "")


def clock(ahead_s: int, now: float) -> str:
    """Return what -rtc takes for a clock that is *ahead_s* ahead of *now*, seconds since the epoch.

    :raises LabError: a machine's clock cannot tell that time.
    """
    if not ahead_s:
        return "base=utc"
    if not -now <= ahead_s < CLOCK_ENDS - now:
        raise LabError(
            f"a clock that is {ahead_s} s ahead: it must tell a time between the years 1970 and 2099"
        )
    return "base=" + time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now + ahead_s))


def arguments(machine: Machine, now: float) -> list[str]:
    """Return the command that runs *machine* until it is switched off or killed.

    :param now: seconds since the epoch, for a clock that differs.
    """
    kind, accelerator = ARCHITECTURES[machine.architecture], machine.accelerator
    command = [kind.program, "-name", machine.name, "-M", kind.board, "-nodefaults", "-no-user-config"]
    command += ["-display", "none", "-accel", ACCELERATORS[accelerator]]
    command += ["-cpu", model(accelerator, machine.cpu, machine.architecture)]
    command += ["-m", str(MEMORY_MB), "-smp", "1", "-rtc", clock(machine.clock_s, now)]
    command += ["-kernel", str(machine.kernel), "-initrd", str(machine.first), "-append", machine.words]
    command += _console(kind, machine.run / "console")
    command += ["-qmp", f"unix:{machine.run / 'qmp'},server=on,wait=off"]
    for path, written in machine.disks:
        command += ["-drive", f"file={_in_list(path)},if=virtio,{WRITTEN if written else READ}"]
    for number, (tap, address) in enumerate(machine.taps):
        command += ["-netdev", f"tap,id=n{number},ifname={tap},script=no,downscript=no"]
        command += ["-device", f"{kind.network},netdev=n{number},mac={address}"]
    return [*command, "-device", kind.random]


def trial(cpu: str, architecture: str, accelerator: str) -> list[str]:
    """Return the command that makes a machine with the processor *cpu*, starts nothing in it, and talks QMP."""
    kind = ARCHITECTURES[architecture]
    command = [kind.program, "-M", kind.board, "-nodefaults", "-no-user-config", "-display", "none", "-S"]
    command += ["-accel", accelerator, "-cpu", model(accelerator, cpu, architecture)]
    return [*command, "-m", "64", "-qmp", "stdio"]


def is_machine(command_line: bytes, name: str) -> bool:
    """Return whether that, as /proc/PID/cmdline has it, runs the machine *name*: as :func:`arguments` begins."""
    return command_line.split(b"\0")[1:3] == [b"-name", name.encode()]


def _in_list(path: Path) -> str:
    """As QEMU takes it among other options."""
    return str(path).replace(",", ",,")


def _console(kind: Architecture, file: Path) -> list[str]:
    if not kind.serial:
        return ["-serial", f"file:{file}"]
    return ["-chardev", f"file,id=console,path={file}", "-device", kind.serial]
