"""An environment as ``pip install . ./plugin`` leaves it: both wheels, what they require, and nothing else.

No registry is asked: wheels of what is required are made of the files that are installed here.
"""

from __future__ import annotations

import email
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PIP = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input"]
NO_SOURCES = shutil.ignore_patterns("__pycache__", "build", "dist", "*.egg-info")


def run(*command: str | Path, path: str = "") -> str:
    """What it prints, with ``path`` as PYTHONPATH; fails with all of it when it fails."""
    env = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd="/", env=env)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def build(tree: Path, out: Path) -> dict[str, Path]:
    """Both wheels, by the name of the package inside, built of a copy in *tree*."""
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md"):
        shutil.copy(ROOT / name, tree)
    for name in ("migrate", "plugin", "manual"):
        shutil.copytree(ROOT / name, tree / name, ignore=NO_SOURCES)
    words = (*PIP, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w")
    run(*words, out, tree, tree / "plugin")
    (driver,), (library,) = out.glob("tcp_migrate-*.whl"), out.glob("tcpcp-*.whl")
    return {"migrate": driver, "tcpcp": library}


def wheel_of_installed(name: str, directory: Path) -> Path:
    """A wheel made of the files of an installed distribution."""
    distribution = importlib.metadata.distribution(name)
    text = distribution.read_text("WHEEL") or ""
    tag = email.message_from_string(text)["Tag"]
    wheel = directory / f"{re.sub('[-.]+', '_', name)}-{distribution.version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in distribution.files or ():
            if file.suffix != ".pyc" and ".." not in file.parts:
                archive.write(str(distribution.locate_file(file)), file)
    return wheel


def required(*names: str) -> set[str]:
    """The distributions that these need, and those that they need in turn, extras left out; themselves as well."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            lines = importlib.metadata.distribution(name).requires or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system or Python
        found.add(name)
        waiting += [re.split(r"[^\w.-]", line)[0] for line in lines if "extra ==" not in line]
    return found


def install(where: Path, wheels: list[Path], names: set[str]) -> Path:
    """Make an environment in *where* with *wheels* and the distributions *names*; its directory of programs."""
    run(sys.executable, "-I", "-m", "venv", "--without-pip", where / "venv")
    for name in names:
        wheel_of_installed(name, where)
    python = where / "venv" / "bin" / "python"
    run(*PIP, "--python", python, "install", "--no-index", "--find-links", where, *wheels)
    return python.parent
