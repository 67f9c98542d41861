"""Which accelerator boots a machine here, found by booting one: a kernel that says that it has come so far.

That /dev/kvm is there does not mean that it works: within some machines QEMU hangs with it, so there is a limit.
"""

import os
import shutil
import subprocess
from pathlib import Path

from migrate.lab import state
from migrate.lab.errors import LabError
from migrate.lab.vm import cache, qemu
from migrate.lab.vm.kernels import Kernel

GOOD = b"LAB PROBE GOOD"
DEADLINES_S = {"kvm": 8.0, "tcg": 60.0}
MEMORY_MB = 256


def accelerator(kernel: Kernel) -> str:
    """Return ``kvm`` or ``tcg``; found once for each boot of this machine.

    :raises LabError: with neither a machine boots; the message says what it said last.
    """
    if shutil.which(qemu.PROGRAM) is None:
        raise LabError(f"{qemu.PROGRAM} is not installed: tools/setup vm installs what machines need")
    known = cache.CACHE / "accelerator"
    if known.exists():
        name, _, boot = known.read_text(errors="replace").strip().partition(" ")
        if name in qemu.ACCELERATORS and boot == state.boot_id():
            return name
    found = next((name for name in ("kvm", "tcg") if _possible(name) and boots(name, kernel)), None)
    if found is None:
        raise LabError("no machine boots here, neither with KVM nor without")
    known.write_text(f"{found} {state.boot_id()}\n")
    return found


def _possible(name: str) -> bool:
    return name != "kvm" or Path("/dev/kvm").exists()


def boots(name: str, kernel: Kernel) -> bool:
    """Return whether *kernel* comes up with the accelerator *name* within its limit."""
    command = [qemu.PROGRAM, "-M", "q35", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    command += ["-accel", qemu.ACCELERATORS[name], "-cpu", qemu.model(name, ""), "-m", str(MEMORY_MB)]
    command += ["-kernel", str(kernel.image), "-initrd", str(kernel.first), "-serial", "stdio"]
    command += ["-append", "console=ttyS0 quiet panic=-1 mitigations=off lab.probe"]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=cache.end_with(os.getpid()),
    ) as run:
        try:
            said, _ = run.communicate(timeout=DEADLINES_S[name])
        except subprocess.TimeoutExpired:
            run.kill()
            said, _ = run.communicate()
        finally:
            run.kill()  # Also when a signal ends us: a machine that hangs would be waited for.
    return GOOD in said
