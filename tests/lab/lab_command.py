"""The command ``migrate-lab`` as a process, and what a lab has running, by the kernel's own tables."""

import subprocess
import sys
from pathlib import Path

HOSTS = ("origin", "destination", "gateway", "peer")


def command(name: str, *words: str) -> list[str]:
    return [sys.executable, "-m", "migrate.lab", "--name", name, *words]


def migrate_lab(name: str, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(command(name, *words), capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload,no-any-return]


def processes_of(name: str) -> list[int]:
    """PIDs of the inits of lab *name*, and of everything that is in a namespace of one of them."""
    everything = [path for path in Path("/proc").iterdir() if path.name.isdigit()]
    inits = [path for path in everything if is_init_of(name, path)]
    spaces = {space for init in inits for space in namespaces(init)} - namespaces(Path("/proc/self"))
    return [int(path.name) for path in everything if path in inits or spaces & namespaces(path)]


def is_init_of(name: str, process: Path) -> bool:
    words = read(process / "cmdline").decode(errors="replace").split("\0")[:-1]
    return len(words) > 4 and words[3].endswith("/init.py") and words[-1] == name


def namespaces(process: Path) -> set[str]:
    return {found for kind in ("pid", "net", "mnt") if (found := link(process / "ns" / kind))}


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def link(path: Path) -> str | None:
    try:
        return str(path.readlink())
    except OSError:
        return None
