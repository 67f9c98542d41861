"""The root file system of the machines: Debian's packages, the Python packages that the project pins, and CRIU.

mmdebstrap has apt verify every package and runs the packages' scripts in a directory with devices of its own, so
that nothing of this machine is touched. It mounts this machine's /dev/shm and more there, in a namespace of its
own: who removes the directory later, of a build that was killed too, removes nothing of the machine's. The
packages' files are kept: a second image needs no download.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from migrate.lab.errors import LabError
from migrate.lab.host import PROJECT
from migrate.lab.vm import cache, debian, disks
from migrate.lab.vm.qemu import OWN

HOOK = Path(__file__).with_name("root-hook")
REQUIREMENTS = PROJECT / "tools" / "requirements.txt"
CRIU_PREFIX = PROJECT / "migrate" / "criu" / "criu-prefix"
#: Of the file system: what is in it, and 1 GB of room. Who fills that is told so by the file system.
SIZE_BYTES = 3 << 29
#: What tests run in the machines, beside what the commands need.
CLIENT_LIBRARIES = ("redis", "async-timeout")  # which redis needs on the 3.11.2 of Debian 12
FOREIGN_HOOK = Path(__file__).with_name("foreign-root-hook")
#: What the guest, the library and its tests need; their dependencies come along.
FOREIGN_PACKAGES = (
    *("bash", "coreutils", "dash", "grep", "sed", "mount", "util-linux", "kmod", "iproute2", "iputils-ping"),
    *("procps", "python3", "nftables", "libnftables1"),
)
#: Of :data:`migrate.lab.vm.debian.SUITE`.
PYTHON = "3.11"
PACKAGES = (
    *("systemd-sysv", "udev", "dbus", "kmod", "sudo", "libcap2-bin", "ca-certificates", "procps", "psmisc"),
    *("iproute2", "iputils-ping", "ethtool", "nftables", "libnftables1", "tcpdump", "curl"),
    *("openssh-server", "openssh-client", "python3", "python3-venv", "redis-server", "nginx-light"),
    *("patchelf", "binutils", "debian-archive-keyring", "python3-setuptools", "python3-wheel"),
)


def requirements(text: str) -> list[str]:
    """Return the pins that machines need of tools/requirements.txt: its first paragraph, and the clients'."""
    first, _, rest = text.partition("\n\n")
    lines = [line for line in first.splitlines() if line and not line.startswith("#")]
    return lines + [line for line in rest.splitlines() if line.partition("==")[0] in CLIENT_LIBRARIES]


def root() -> Path:
    """Return the directory of the image, from the cache or made now (two minutes, 100 MB the first time).

    ``image`` is the file system, ``tree`` its content, ``packages`` the versions of what is in it.
    :raises LabError: it cannot be made.
    """
    return cache.built(_name(), _make)


def of(architecture: str) -> Path:
    """Return the directory of the image for a machine of *architecture*. :raises LabError: it cannot be made."""
    return root() if architecture == OWN else foreign(architecture)


def foreign(architecture: str) -> Path:
    """Return the directory of an image of another architecture: packages unpacked, none of their scripts run.

    That is enough for Python, the library and what the guest needs, and nothing has to be emulated here.
    :raises LabError: it cannot be made.
    """
    recipe = [FOREIGN_HOOK.read_text(), str(SIZE_BYTES), *FOREIGN_PACKAGES, *_foreign_pins()]
    digest = hashlib.sha256("\n".join([debian.SUITE, *recipe]).encode()).hexdigest()[:12]
    return cache.built(
        f"root-{architecture}-{digest}", lambda directory: _make_foreign(architecture, directory)
    )


def _foreign_pins() -> list[str]:
    """What the library needs."""
    return [pin for pin in requirements(REQUIREMENTS.read_text()) if pin.startswith("protobuf==")]


def _make_foreign(architecture: str, directory: Path) -> None:
    tree, python, settings = directory / "tree", directory / "python", directory / "apt.conf"
    settings.write_text(debian.acquire_settings())
    # The wheel that is for any machine, not the one with code for this one's.
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-compile",
    ]
    pip += ["--only-binary=:all:", "--python-version", PYTHON, "--platform", "any", "--target", str(python)]
    _build([*pip, *_foreign_pins()], directory)
    options = ["--mode=root", "--variant=extract", f"--architectures={architecture}", f"--aptopt={settings}"]
    options += [f"--include={','.join(FOREIGN_PACKAGES)}", f"--setup-hook={FOREIGN_HOOK}"]
    sources = debian.sources((debian.SUITE,), architecture)
    _build(["mmdebstrap", *options, debian.SUITE, tree, *sources], directory)
    shutil.copytree(python, tree / f"usr/local/lib/python{PYTHON}/dist-packages")
    disks.make(tree, directory / "image", "root", SIZE_BYTES)
    shutil.rmtree(tree)
    shutil.rmtree(python)


def is_built() -> bool:
    """Return whether the image is in the cache."""
    return (cache.CACHE / _name()).exists()


def _name() -> str:
    """What the image is called: by all that it is made of, but for the versions of Debian's packages."""
    if not REQUIREMENTS.exists():
        how = "there `tools/setup vm`, once, and then `.venv/bin/migrate-lab`"
        raise LabError(f"machines are built from a checkout of the project: run {how}")
    recipe = [HOOK.read_text(), CRIU_PREFIX.read_text(), *PACKAGES, *requirements(REQUIREMENTS.read_text())]
    digest = hashlib.sha256("\n".join([debian.SUITE, str(SIZE_BYTES), *recipe]).encode()).hexdigest()[:12]
    return f"root-{digest}"


def _make(directory: Path) -> None:
    tree, python = directory / "tree", directory / "python"
    _python_packages(python)
    kept = cache.CACHE / "packages"
    kept.mkdir(exist_ok=True)
    archives = "/var/cache/apt/archives"
    hooks = [
        f'--setup-hook=mkdir -p "$1"{archives}',
        f"--setup-hook=sync-in {kept} {archives}",
        f"--customize-hook=sync-out {archives} {kept}",
        f"--customize-hook=sync-in {python} /usr/local/lib/python{PYTHON}/dist-packages",
        f"--customize-hook=copy-in {CRIU_PREFIX} /root",
        f"--customize-hook={HOOK}",
    ]
    settings = directory / "apt.conf"
    settings.write_text(debian.acquire_settings())
    options = ["--mode=root", "--variant=minbase", "--skip=essential/unlink", f"--aptopt={settings}"]
    command = ["mmdebstrap", *options, f"--include={','.join(PACKAGES)}", *hooks, debian.SUITE, str(tree)]
    _build([*command, *debian.sources((debian.SUITE,))], directory)
    (directory / "packages").write_text(_installed(tree))
    disks.make(tree, directory / "image", "root", SIZE_BYTES)
    shutil.rmtree(python)


def _build(command: Sequence[str | Path], directory: Path) -> None:
    """Run mmdebstrap or pip. If it is killed the next build removes what it has left, with *directory*."""
    temporary = directory / "temporary"
    temporary.mkdir(exist_ok=True)
    cache.run(command, env=os.environ | {"TMPDIR": str(temporary)})
    shutil.rmtree(temporary)


def _python_packages(directory: Path) -> None:
    """Install the pinned wheels into *directory*, for the machines' Python, whatever this one is."""
    pins = requirements(REQUIREMENTS.read_text())
    target = [
        "--target",
        str(directory),
        "--python-version",
        PYTHON,
        "--implementation",
        "cp",
        "--no-compile",
    ]
    for name in ("manylinux_2_36_x86_64", "manylinux_2_28_x86_64", "manylinux2014_x86_64"):
        target += ["--platform", name]
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
    _build([*command, "--only-binary=:all:", *target, *pins], directory.parent)


def _installed(tree: Path) -> str:
    """Which version of which package is in the image: what to compare when two images differ."""
    form = "${Package} ${Version}\\n"
    return cache.run(["dpkg-query", "--admindir", tree / "var/lib/dpkg", "-W", "-f", form])
