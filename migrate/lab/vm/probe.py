"""Whether machines can boot here, in seconds: ``python -m migrate.lab.vm.probe`` says why not, with status 1.

It builds nothing but the kernel that it boots. What is not kept from before has to come from Debian's archive, so
without a way there nothing can boot; that is asked with a limit of its own.
"""

import os
import shutil
import sys

from migrate.lab.errors import LabError
from migrate.lab.vm import accelerator, cache, debian, kernels, qemu, root

PROGRAMS = (qemu.PROGRAM, "qemu-img", "mkfs.ext4", "depmod", "zstd")
#: What only building needs.
BUILDERS = ("mmdebstrap", "apt-get", "dpkg-deb")
ARCHIVE_DEADLINE_S = 30.0


def problem() -> str:
    """Return why no machine can boot here, as a sentence; "" if one can."""
    cache.complete_path()
    if os.geteuid() != 0:
        return "it needs root"
    try:
        with cache.filling():
            cache.CACHE.mkdir(parents=True, exist_ok=True)
            needed = PROGRAMS if root.is_built() else (*PROGRAMS, *BUILDERS)
            if missing := [name for name in needed if shutil.which(name) is None]:
                return f"{', '.join(missing)} not installed: tools/setup vm"
            if not root.is_built():
                _reach_archive()
            accelerator.accelerator(kernels.kernel())
    except LabError as error:
        return str(error)
    return ""


def problem_of(architecture: str) -> str:
    """Return why no machine of *architecture* can be had here; "" if one can, as far as is known beforehand."""
    cache.complete_path()
    program = qemu.ARCHITECTURES[architecture].program
    if shutil.which(program) is None:
        return f"{program} is not installed: tools/setup vm"
    return problem()


def _reach_archive() -> None:
    """:raises LabError: Debian's archive does not answer."""
    archive, _ = debian.mirrors()
    address = f"{archive}/dists/{debian.SUITE}/InRelease"
    helper = "/usr/lib/apt/apt-helper"
    target = cache.CACHE / "reached"
    target.unlink(missing_ok=True)
    cache.run([helper, "download-file", address, target], timeout_s=ARCHIVE_DEADLINE_S)


def main() -> int:
    """The command."""
    why = problem()
    print(why or "machines can boot here")
    return 1 if why else 0


if __name__ == "__main__":
    sys.exit(main())
