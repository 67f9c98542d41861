"""Debian's packages, through lists of apt's of the lab's own: the machine's packages and lists stay as they are.

Everything is verified as apt always does: the archive's signed Release file names the hash of the list of packages,
and that the hash of each package. The mirror is the one that the machine's own apt uses.
"""

import re
import shutil
import time
from pathlib import Path

from migrate.lab.errors import LabError
from migrate.lab.vm import cache

#: The suite of which the machines are made; of the others come kernels.
SUITE = "bookworm"
KERNEL_SUITES = (SUITE, "trixie")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
DEFAULT_MIRROR = "http://deb.debian.org/debian"
DEFAULT_SECURITY_MIRROR = "http://deb.debian.org/debian-security"
LISTS_AGE_S = 86_400.0
DOWNLOAD_DEADLINE_S = 600.0
#: How the names of kernels' packages begin, and of those that have one in them.
PREFIX = "linux-image-"
VERSIONED = re.compile(rf"{PREFIX}\d+\.\d+\.\d+")
#: Whose kernels Debian builds for machines in clouds, too: smaller ones.
CLOUD = ("amd64", "arm64")


def mirrors() -> tuple[str, str]:
    """Return the address of Debian's archive and of its security updates, as the machine's apt knows them."""
    lines = cache.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(ORIGIN)|$(LABEL)|$(REPO_URI)",
            "Created-By: Packages",
        ]
    ).splitlines()
    known = {tuple(line.split("|")[:2]): line.split("|")[2] for line in lines if line.count("|") == 2}
    return (
        known.get(("Debian", "Debian"), DEFAULT_MIRROR).rstrip("/"),
        known.get(("Debian", "Debian-Security"), DEFAULT_SECURITY_MIRROR).rstrip("/"),
    )


def acquire_settings() -> str:
    """Return how this machine's apt gets what it gets (proxies, retries, clocks), as lines of apt.conf(5)."""
    lines = cache.run(["apt-config", "dump"]).splitlines()
    wanted = ("Acquire::Check-", "Acquire::Max-", "Acquire::Retries", "Acquire::http", "Acquire::https")
    return "\n".join(line for line in lines if line.startswith(wanted) and '""' not in line) + "\n"


def sources(suites: tuple[str, ...], architecture: str = "amd64") -> list[str]:
    """Return the lines of a sources.list of *suites* with their updates."""
    archive, security = mirrors()
    options = f"[arch={architecture} signed-by={KEYRING}]"
    return [
        f"deb {options} {address} {suite}{tail} main"
        for suite in suites
        for address, tail in ((archive, ""), (archive, "-updates"), (security, "-security"))
    ]


class Packages:
    """The packages of :data:`KERNEL_SUITES` for one architecture, as apt sees them."""

    def __init__(self, architecture: str = "amd64") -> None:
        self.architecture = architecture
        self.directory = cache.CACHE / f"apt-{architecture}"
        self.downloads = self.directory / "downloads"

    def _options(self) -> list[str]:
        own = self.directory
        return [
            *("-q", "-o", f"Dir::State={own}/state", "-o", f"Dir::State::status={own}/status"),
            *("-o", f"Dir::Cache={own}/cache", "-o", f"Dir::Etc::SourceList={own}/sources.list"),
            *("-o", "Dir::Etc::SourceParts=/dev/null", "-o", "Dir::Etc::PreferencesParts=/dev/null"),
            *(
                "-o",
                f"APT::Architecture={self.architecture}",
                "-o",
                f"APT::Architectures={self.architecture}",
            ),
            *("-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3"),
        ]

    def update(self) -> None:
        """Get the lists, unless they are of today. :raises LabError: there are none and they cannot be had."""
        if self._is_of_today():
            return
        with cache.locked(f"lists-{self.architecture}"):
            if not self._is_of_today():
                self._get_lists(self.directory / "updated")

    def _is_of_today(self) -> bool:
        stamp = self.directory / "updated"
        return stamp.exists() and abs(time.time() - stamp.stat().st_mtime) < LISTS_AGE_S

    def _get_lists(self, stamp: Path) -> None:
        for name in ("state/lists/partial", "cache/archives/partial", "downloads"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        (self.directory / "status").write_text("")
        (self.directory / "sources.list").write_text(
            "\n".join(sources(KERNEL_SUITES, self.architecture)) + "\n"
        )
        try:
            cache.run(
                ["apt-get", *self._options(), "update", "--error-on=any"], timeout_s=DOWNLOAD_DEADLINE_S
            )
        except LabError:
            # A mirror that is just being brought up to date has some of them; those of an earlier day are good.
            if not stamp.exists() and not list((self.directory / "state/lists").glob("*_Packages*")):
                raise
            return
        stamp.touch()

    def names(self, beginning: str) -> list[str]:
        """Return the names of all packages that begin so."""
        self.update()
        return cache.run(["apt-cache", *self._options(), "pkgnames", beginning]).split()

    def kernel_behind(self, name: str) -> str:
        """Return the kernel that package *name* is, or that it depends on: linux-image-amd64 has none itself.

        :raises LabError: it is neither.
        """
        if VERSIONED.match(name):
            return behind(name, "")
        return behind(name, cache.run(["apt-cache", *self._options(), "show", "--no-all-versions", name]))

    def download(self, name: str) -> Path:
        """Return the newest package *name* as a file, verified by apt when it came.

        :raises LabError: there is none of that name.
        """
        self.update()
        pattern = f"{name}_*_{self.architecture}.deb"
        if not (found := list(self.downloads.glob(pattern))):
            found = self._fetch(name, pattern)
        if not found:
            raise LabError(f"apt-get downloaded {name} and left no file {pattern}")
        return max(found, key=lambda path: path.stat().st_mtime)

    def _fetch(self, name: str, pattern: str) -> list[Path]:
        """Have apt download it, in a directory of its own: what has its name in ours is whole."""
        under_way = self.downloads / "new"
        shutil.rmtree(under_way, ignore_errors=True)
        under_way.mkdir()
        command = ["apt-get", *self._options(), "download", name]
        cache.run(command, timeout_s=DOWNLOAD_DEADLINE_S, cwd=under_way)
        found = [path.rename(self.downloads / path.name) for path in under_way.glob(pattern)]
        shutil.rmtree(under_way)
        return found

    def unpack(self, name: str, directory: Path) -> None:
        """Unpack the newest package *name* into *directory*, without running any of its scripts."""
        cache.run(["dpkg-deb", "-x", self.download(name), directory])


def newest(names: list[str], wanted: str, architecture: str) -> str:
    """Return the kernel package among *names* that *wanted* means.

    :param wanted: a version or the beginning of one (``6.1``, ``6.12.107``), which means the newest of Debian's
        cloud kernels, or of the plain ones where it has none; or all that follows ``linux-image-``
        (``6.1.0-56-amd64``).
    :raises LabError: none is meant; the message names some.
    """
    exact = PREFIX + wanted.removeprefix(PREFIX)
    if exact in names:
        return exact
    number = re.compile(rf"{PREFIX}{re.escape(wanted)}(?![0-9])")
    full = [name for name in names if number.match(name) and VERSIONED.match(name)]
    for kind in _kinds(architecture):
        if found := [name for name in full if kind.search(name)]:
            return max(found, key=_numbers)
    known = sorted({m[1] for name in names if (m := re.match(rf"{PREFIX}(\d+\.\d+)\.\d", name))})
    raise LabError(f"Debian has no kernel {wanted!r}: give one of {', '.join(known)}, or a package's name")


def _kinds(architecture: str) -> list[re.Pattern[str]]:
    """Kernels of which a version means the newest: those for clouds, plain ones, then any, as real-time ones."""
    plain = rf"^{VERSIONED.pattern}[^-]*(-\d+)?-{architecture}$"
    return [re.compile(end) for end in (f"-cloud-{architecture}$", plain, f"-{architecture}$")]


def settled(names: list[str], wanted: str, architecture: str) -> str | None:
    """Return what *wanted* means if *names* alone say so, whatever there is beside them; else None.

    :param names: also of kernels of other architectures, none of which is meant.
    """
    own = re.compile(f"-{architecture}(-|$)")  # arm64 has kernels called arm64-16k, too.
    try:
        found = newest([name for name in names if own.search(name)], wanted, architecture)
    except LabError:
        return None
    best = _kinds(architecture)[0 if architecture in CLOUD else 1]
    return found if best.search(found) or found.removeprefix(PREFIX) == wanted.removeprefix(PREFIX) else None


def behind(name: str, shown: str) -> str:
    """Return the kernel that package *name* is, or that it depends on as ``apt-cache show`` has *shown* it.

    :raises LabError: it is neither.
    """
    needed = re.search(rf"^Depends: .*?({VERSIONED.pattern}[^ ,]*)", shown, re.MULTILINE)
    found = name if VERSIONED.match(name) else needed[1] if needed else ""
    if not found or found.endswith("-dbg"):
        raise LabError(f"{name} has no kernel in it: give a version, or the name of a package that has one")
    return found


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall(r"\d+", name))
