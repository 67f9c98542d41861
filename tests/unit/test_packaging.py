"""The two distributions: the library installs and works alone, and nothing of the tree is missing in a wheel."""

from __future__ import annotations

import email
import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from migrate import version
from tcpcp.version import VERSION

ROOT = Path(__file__).resolve().parents[2]
PIP = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input"]
NO_SOURCES = shutil.ignore_patterns("__pycache__", "build", "dist", "*.egg-info")
# What the library must not drag in. (Its modules for CRIU import pycriu where it is there.)
OF_THE_DRIVER = {"migrate", "paramiko", "pyroute2", "rich"}

IMPORT_ALL = """
import importlib, pkgutil, sys
import tcpcp
found = pkgutil.walk_packages(tcpcp.__path__, "tcpcp.", onerror=lambda name: sys.exit(name))
names = [module.name for module in found if not module.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print("imported", *names)
print("loaded", *{name.partition(".")[0] for name in sys.modules})
"""

pytestmark = pytest.mark.timeout(600)


def run(*command: str | Path, path: str = "") -> str:
    """What it prints, with ``path`` as PYTHONPATH; fails with all of it when it fails."""
    env = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd="/", env=env)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def import_all(python: str | Path, path: str = "") -> tuple[set[str], set[str]]:
    """Import every module of tcpcp: their names, and the top-level names of all that was loaded by it."""
    lines = run(python, "-c", IMPORT_ALL, path=path).splitlines()
    imported, loaded = (set(line.split()[1:]) for line in lines[-2:])
    return imported, loaded


def files(package: Path) -> set[str]:
    """What a wheel must have of a package: the names of all files, relative to its parent."""
    found = (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(package.parent)) for path in found}


def module_names(package: Path) -> set[str]:
    """The names of the modules under a package, without its own and those that are programs."""
    parts = (Path(file).with_suffix("").parts for file in files(package) if file.endswith(".py"))
    names = {".".join(part for part in each if part != "__init__") for each in parts}
    return {name for name in names if name != package.name and not name.endswith("__main__")}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels, by the name of the package inside, built of a copy of the tree."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheels")
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md"):
        shutil.copy(ROOT / name, tree)
    for name in ("migrate", "plugin"):
        shutil.copytree(ROOT / name, tree / name, ignore=NO_SOURCES)
    build = (*PIP, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w")
    run(*build, out, tree, tree / "plugin")
    (driver,), (library,) = out.glob("tcp_migrate-*.whl"), out.glob("tcpcp-*.whl")
    return {"migrate": driver, "tcpcp": library}


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def requirements(wheel: Path) -> dict[str, str]:
    """Name and condition of each requirement, extras left out."""
    wanted = (line for line in metadata(wheel).get_all("Requires-Dist", []) if "extra ==" not in line)
    names = ((line, line.split("=")[0].rstrip("<>~!")) for line in wanted)
    return {name: line.removeprefix(name) for line, name in names}


def wheel_of_installed(name: str, directory: Path) -> Path:
    """A wheel made of the files of an installed distribution, so that no registry is asked for it."""
    distribution = importlib.metadata.distribution(name)
    text = distribution.read_text("WHEEL") or ""
    wheel = directory / f"{name}-{distribution.version}-{email.message_from_string(text)['Tag']}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in distribution.files or ():
            if file.suffix != ".pyc":
                archive.write(str(distribution.locate_file(file)), file)
    return wheel


@pytest.fixture(scope="module")
def alone(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of programs of an environment that has the library and what it requires, nothing else."""
    directory = tmp_path_factory.mktemp("alone")
    run(sys.executable, "-I", "-m", "venv", "--without-pip", directory / "venv")
    wheel_of_installed("protobuf", directory)
    python = directory / "venv" / "bin" / "python"
    run(*PIP, "--python", python, "install", "--no-index", "--find-links", directory, wheels["tcpcp"])
    return python.parent


@pytest.mark.parametrize("package", ["plugin/tcpcp", "migrate"])
def test_nothing_is_missing_in_the_wheel(wheels: dict[str, Path], package: str) -> None:
    with zipfile.ZipFile(wheels[Path(package).name]) as archive:
        there = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert there == files(ROOT / package)
    assert f"{Path(package).name}/py.typed" in there


def test_one_version(wheels: dict[str, Path]) -> None:
    assert {metadata(wheel)["Version"] for wheel in wheels.values()} == {VERSION}
    assert version.VERSION == VERSION
    assert requirements(wheels["migrate"])["tcpcp"] == f"=={VERSION}"


def test_only_the_driver_requires_the_drivers_packages(wheels: dict[str, Path]) -> None:
    assert set(requirements(wheels["tcpcp"])) == {"protobuf"}
    assert set(requirements(wheels["migrate"])) == {"tcpcp", "protobuf", "paramiko", "pyroute2", "rich"}


def test_the_library_alone(alone: Path) -> None:
    """Every module of it can be imported where there is protobuf and nothing of the driver."""
    listed = run(*PIP, "--python", alone / "python", "list", "--format=freeze").splitlines()
    assert {line.partition("==")[0] for line in listed} == {"protobuf", "tcpcp"}
    imported, loaded = import_all(alone / "python")
    assert imported == module_names(ROOT / "plugin" / "tcpcp")
    assert loaded & OF_THE_DRIVER == set()


def test_its_command_and_its_version(alone: Path) -> None:
    assert run(alone / "tcpcp", "--version").split() == ["tcpcp", VERSION]
    assert run(alone / "python", "-c", "import tcpcp; print(tcpcp.__version__)").strip() == VERSION
    assert not (alone / "migrate").exists()


def test_the_library_does_not_import_the_driver() -> None:
    """Not even here, where the driver and all it needs is there."""
    imported, loaded = import_all(sys.executable, f"{ROOT / 'plugin'}:{ROOT}")
    assert imported == module_names(ROOT / "plugin" / "tcpcp")
    assert loaded & OF_THE_DRIVER == set()
