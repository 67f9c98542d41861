"""The two distributions: the library installs and works alone, and nothing of the tree is missing in a wheel."""

from __future__ import annotations

import email
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest
from clean_environment import PIP, ROOT, build, install, required, run

from migrate import version
from migrate.criu.setup import link
from tcpcp.version import VERSION

# What the library must not drag in. (Its modules for CRIU import pycriu where it is there.)
OF_THE_DRIVER = {"migrate", "paramiko", "pyroute2", "rich"}

IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
found = pkgutil.walk_packages(package.__path__, package.__name__ + ".", onerror=lambda name: sys.exit(name))
names = [module.name for module in found if not module.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print("imported", *names)
print("loaded", *{name.partition(".")[0] for name in sys.modules})
"""

pytestmark = pytest.mark.timeout(600)


def import_all(python: str | Path, path: str = "", package: str = "tcpcp") -> tuple[set[str], set[str]]:
    """Import every module of *package*: their names, and the top-level names of all that was loaded by it."""
    lines = run(python, "-c", IMPORT_ALL, package, path=path).splitlines()
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
    return build(tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheels"))


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def requirements(wheel: Path) -> dict[str, str]:
    """Name and condition of each requirement, extras left out."""
    wanted = (line for line in metadata(wheel).get_all("Requires-Dist", []) if "extra ==" not in line)
    names = ((line, line.split("=")[0].rstrip("<>~!")) for line in wanted)
    return {name: line.removeprefix(name) for line, name in names}


@pytest.fixture(scope="module")
def alone(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of programs of an environment that has the library and what it requires, nothing else."""
    return install(tmp_path_factory.mktemp("alone"), [wheels["tcpcp"]], {"protobuf"})


@pytest.fixture(scope="module")
def driver(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the driver and all that it requires: no CRIU, no pycriu."""
    needed = required(*requirements(wheels["migrate"])) - {"tcpcp"}
    return install(tmp_path_factory.mktemp("driver"), list(wheels.values()), needed)


@pytest.mark.parametrize("package", ["plugin/tcpcp", "migrate"])
def test_nothing_is_missing_in_the_wheel(wheels: dict[str, Path], package: str) -> None:
    with zipfile.ZipFile(wheels[Path(package).name]) as archive:
        there = {name for name in archive.namelist() if ".dist-info/" not in name and ".data/" not in name}
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


def test_the_driver_without_criu(driver: Path) -> None:
    """Nothing of it is a traceback, and what refusals recommend is there."""
    imported, loaded = import_all(driver / "python", package="migrate")
    assert imported == module_names(ROOT / "migrate")
    assert "pycriu" not in loaded
    assert run(driver / "migrate", "--version").split() == ["migrate", VERSION]
    assert "PREFIX" in run(driver / "migrate-criu", "--help")
    assert run(driver / "migrate-lab", "--help").startswith("usage: migrate-lab [--vm]")


def test_the_manual_and_the_completion_are_where_they_are_looked_for(driver: Path) -> None:
    """Beside the directory of programs, whose man and bash-completion find them without being told."""
    share = driver.parent / "share"
    names = {
        name.name: ROOT / folder
        for folder in ("manual", "plugin/manual")
        for name in (ROOT / folder / "bash").iterdir()
    }
    for name, folder in names.items():
        (page,) = share.glob(f"man/man[18]/{name}.*")
        assert page.read_text() == (folder / page.name).read_text()
        assert (share / "bash-completion/completions" / name).read_text() == (
            folder / "bash" / name
        ).read_text()
        for made in (f"zsh/site-functions/_{name}", f"fish/vendor_completions.d/{name}.fish"):
            assert (share / made).exists()
    assert {*names} == {"migrate", "migrate-agent", "migrate-criu", "migrate-lab", "tcpcp", "tcpcp-helper"}
    found = run("env", f"PATH={driver}:/usr/bin:/bin", "man", "-w", "migrate")
    assert found.strip() == str(share / "man/man1/migrate.1")


def test_what_migrate_criu_links(driver: Path, tmp_path: Path) -> None:
    """As after its download, which tools/setup does: this Python finds CRIU and pycriu."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "criu").write_text("#!/bin/sh\n")
    (tmp_path / "python" / "pycriu").mkdir(parents=True)
    (tmp_path / "python" / "pycriu" / "__init__.py").write_text("")
    site = Path(
        run(driver / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    )
    link(tmp_path, driver / "criu", site)
    link(tmp_path, driver / "criu", site)  # again, as for an upgrade
    found = run(
        driver / "python",
        "-c",
        "import pycriu, migrate.criu.worker as c; print(pycriu.__file__, c.program())",
    )
    assert found.split() == [str(tmp_path / "python/pycriu/__init__.py"), str(driver / "criu")]
    assert (driver / "criu").resolve() == tmp_path / "bin" / "criu"
    (driver / "criu").unlink()
    (driver / "criu").write_text("somebody's own")
    with pytest.raises(FileExistsError, match="is there already"):
        link(tmp_path, driver / "criu", site)
    (driver / "criu").unlink()
    (site / "pycriu.pth").unlink()
