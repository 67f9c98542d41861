"""The project as a disk of the machines, at the path that it has here: commands of tests mean the same there.

What is copied is the tree as it is at ``up``; what is edited afterwards reaches the machines with the next ``up``.
"""

import compileall
import py_compile
import shutil
import sys
from pathlib import Path

from migrate.lab.host import COMMANDS, PROJECT
from migrate.lab.vm import disks, root

PARTS = (
    "migrate",
    "plugin",
    "tests",
    "examples",
    "benchmarks",
    "images",
    "tools",
    "setup.cfg",
    "pyproject.toml",
)
#: Python of the machines, by the names that programs here have for it.
PYTHON = "/usr/bin/python3"
ENTRIES = {
    "migrate": "migrate.start",
    "migrate-agent": "migrate.destination.agent",
    "migrate-criu": "migrate.criu.setup",
    "migrate-lab": "migrate.lab.cli",
    "tcpcp": "tcpcp.cli",
}


def script(module: str) -> str:
    """Return a command's text: what pip would make of its entry point."""
    return f"#!{PYTHON}\nimport sys\n\nfrom {module} import main\n\nsys.exit(main())\n"


def programs() -> Path:
    """Return the directory in which this Python has the project's commands."""
    return Path(sys.executable).parent


def make(work: Path, image: Path) -> None:
    """Make the disk *image*, by way of the directory *work*, which is removed again.

    :raises LabError: it cannot be made.
    """
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".mypy_cache", "build", ".hypothesis")
    work.mkdir(parents=True)
    for name in PARTS:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, work / name, symlinks=True, ignore=ignored)
        elif source.exists():
            shutil.copy2(source, work / name)
    _compile(work)
    if programs().is_relative_to(PROJECT):
        _write_programs(work / programs().relative_to(PROJECT))
    disks.make(work, image, "project")
    shutil.rmtree(work)


def _compile(directory: Path) -> None:
    """Compile the Python files, as far as this Python's version is the machines', which would take long for it."""
    if sys.version_info[:2] == tuple(int(part) for part in root.PYTHON.split(".")):
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        for part in ("migrate", "plugin", "tests/workloads"):
            compileall.compile_dir(directory / part, quiet=2, invalidation_mode=mode)


def _write_programs(directory: Path) -> None:
    directory.mkdir(parents=True)
    for name in ("python", "python3"):
        (directory / name).symlink_to(PYTHON)
    for name, module in ENTRIES.items():
        (directory / name).write_text(script(module))
        (directory / name).chmod(0o755)


def links() -> dict[str, str]:
    """Return links that put the project's commands on a machine's PATH: path -> target."""
    return {f"/usr/local/bin/{name}": str(programs() / name) for name in sorted(set(COMMANDS) & set(ENTRIES))}


def import_path() -> str:
    """Return the line that lets the machines' Python import the project, for a file ``*.pth``."""
    return f"{PROJECT}\n{PROJECT / 'plugin'}\n"
