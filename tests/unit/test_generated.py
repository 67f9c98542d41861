"""The committed protobuf modules are what `make proto` makes of images/*.proto."""

from __future__ import annotations

import filecmp
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("plugin/tcpcp/pb", "migrate/pb")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("proto")
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run([ROOT / "tools" / "proto", directory], check=True, env=environment)
    return directory


@pytest.mark.parametrize("package", PACKAGES)
def test_generated_modules_are_up_to_date(fresh: Path, package: str) -> None:
    made = sorted(path.name for path in (fresh / package).iterdir())
    committed = sorted(path.name for path in (ROOT / package).iterdir() if path.is_file())
    assert made == committed
    _, different, unreadable = filecmp.cmpfiles(fresh / package, ROOT / package, made, shallow=False)
    assert (different, unreadable) == ([], []), "run `make proto` and commit the result"


def test_every_format_has_a_module() -> None:
    formats = {path.stem for path in (ROOT / "images").glob("*.proto")}
    modules = {
        path.stem.removesuffix("_pb2") for package in PACKAGES for path in (ROOT / package).glob("*_pb2.py")
    }
    assert modules == formats


@pytest.mark.parametrize("path", sorted((ROOT / "images").glob("*.proto")), ids=lambda path: path.stem)
def test_every_field_is_documented(path: Path) -> None:
    readme = (ROOT / "images" / "README.md").read_text()
    field = r"^ +(?:repeated |optional )?[\w<>, ]+ ([a-z]\w*) = \d+;"
    fields = re.findall(field, path.read_text(), re.MULTILINE)
    assert fields
    assert [name for name in fields if f"`{name}`" not in readme] == []
