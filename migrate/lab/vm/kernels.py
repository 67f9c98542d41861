"""A kernel of Debian's, made ready to be booted: the kernel itself, its first file system, its modules.

QEMU boots the kernel directly, uncompressed where it can be unpacked here: that saves a machine without KVM
several seconds. Debian's kernels have virtio's drivers as modules, so the first file system loads them.
"""

import lzma
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from migrate.lab.vm import cache, cpio, debian, disks, modules

#: The kernel of Debian's stable release.
DEFAULT = "6.12"
#: What is needed to see disks and network, and the file system on them; some kernels have it built in, some do not.
FIRST_MODULES = (
    *("virtio_pci", "virtio_mmio", "virtio_ccw", "virtio_blk", "virtio_net"),
    *("crc32c_generic", "crc32c-intel", "ext4"),
)
#: Magic number -> the program that unpacks it. Source: scripts/extract-vmlinux of the kernel.
COMPRESSED = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
    b"\x1f\x8b\x08": "gzip",
}
ELF = b"\x7fELF"
INIT = Path(__file__).with_name("first-init")
#: Counted up when what is made of a package changes.
FORMAT = 6


class Kernel(NamedTuple):
    """Files of one kernel. *release* is what ``uname -r`` says in it."""

    release: str
    image: Path
    first: Path
    modules: Path


def kernel(version: str = DEFAULT, architecture: str = "amd64") -> Kernel:
    """Return Debian's kernel *version*, from the cache or made now.

    :param version: see :func:`migrate.lab.vm.debian.newest`.
    :raises LabError: there is none, or apt cannot get it.
    """
    packages = debian.Packages(architecture)
    name = _known(version, architecture) or packages.kernel_behind(
        debian.newest(packages.names("linux-image-"), version, architecture)
    )
    release = name.removeprefix("linux-image-").removesuffix("-unsigned")
    path = cache.built(
        f"kernel-{FORMAT}-{release}", lambda directory: _make(packages, name, release, directory)
    )
    return Kernel(release, path / "image", path / "first", path / "modules")


def _known(version: str, architecture: str) -> str | None:
    """The package that *version* means among the kernels that are made already, if one is.

    A machine without a way to Debian's archive boots what it has.
    """
    prefix = f"kernel-{FORMAT}-"
    names = [
        "linux-image-" + path.name.removeprefix(prefix)
        for path in cache.CACHE.glob(prefix + "*")
        if path.suffix != ".new"
    ]
    return debian.settled(names, version, architecture)


def _make(packages: debian.Packages, name: str, release: str, directory: Path) -> None:
    unpacked = directory / "unpacked"
    packages.unpack(name, unpacked)
    (directory / "image").write_bytes(uncompressed((unpacked / "boot" / f"vmlinuz-{release}").read_bytes()))
    tree = _module_tree(unpacked, release)
    cache.run(["depmod", "-b", unpacked, release])
    (directory / "first").write_bytes(_first(packages, tree, directory))
    disks.make(tree, directory / "modules", "modules")
    shutil.rmtree(unpacked)


def _module_tree(unpacked: Path, release: str) -> Path:
    """The directory of modules, where depmod looks for it: newer packages have it below /usr."""
    old, new = (unpacked / below / "modules" / release for below in ("lib", "usr/lib"))
    if new.exists() and not old.exists():
        old.parent.parent.mkdir(parents=True, exist_ok=True)
        (unpacked / "usr/lib/modules").rename(old.parent)
    return old


def uncompressed(image: bytes) -> bytes:
    """Return the ELF file within a bzImage, or *image* itself if none is found.

    It has to be one that can be entered directly (PVH); all of Debian's for machines can.
    """
    for magic, program in COMPRESSED.items():
        for found in re.finditer(re.escape(magic), image):
            if unpacked := _unpack(program, image[found.start() :]):
                return unpacked
    return image


def _unpack(program: str, data: bytes) -> bytes:
    """What *program* makes of *data*, which something else may follow; nothing if it is no ELF file."""
    if not shutil.which(program):
        return b""
    done = subprocess.run([program, "-dc"], input=data, capture_output=True, check=False, timeout=60)
    return done.stdout if done.stdout.startswith(ELF) else b""


def _first(packages: debian.Packages, tree: Path, directory: Path) -> bytes:
    """The first file system: busybox, the modules, and first-init."""
    packages.unpack("busybox-static", directory / "busybox")
    program = next(
        path for name in ("bin", "usr/bin") if (path := directory / "busybox" / name / "busybox").exists()
    )
    entries = {name: cpio.Entry(None) for name in ("bin", "dev", "proc", "sys", "new", "modules")}
    entries["bin/busybox"] = cpio.Entry(program.read_bytes())
    entries["init"] = cpio.Entry(INIT.read_bytes())
    order = modules.in_order((tree / "modules.dep").read_text(), FIRST_MODULES)
    for number, file in enumerate(order):
        name = f"modules/{number:02}-{modules.name_of(file)}.ko"
        entries[name] = cpio.Entry(_module(tree / file), 0o644)
    shutil.rmtree(directory / "busybox")
    return cpio.archive(entries)


def _module(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dc", path], capture_output=True, check=True, timeout=60).stdout
    return data
