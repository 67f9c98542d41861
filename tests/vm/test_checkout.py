"""A checkout may lie in a file system that a machine has in memory, or have an odd name: it is at its path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.lab.host import PROJECT
from migrate.lab.vm import probe, project

#: What a shell, Python, QEMU and the kernel's command line may take for something else.
ODD = 'it\'s-"$HOME",`x`\\'
SEES = "import sys, migrate.cli, tcpcp; print(migrate.cli.__file__)"


@pytest.fixture
def checkout(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A copy of what a checkout has, in the directory that is asked for."""
    with tempfile.TemporaryDirectory(dir=request.param, prefix=ODD) as made:
        for name in project.PARTS:
            if (PROJECT / name).is_dir():
                shutil.copytree(
                    PROJECT / name, Path(made, name), ignore=shutil.ignore_patterns("__pycache__")
                )
            else:
                shutil.copy2(PROJECT / name, made)
        yield Path(made)


@pytest.mark.parametrize(
    "checkout",
    ["/tmp", *(pytest.param(where, marks=pytest.mark.long) for where in ("/run", "/dev/shm"))],
    indirect=True,
)
def test_the_project_is_in_the_machines(checkout: Path) -> None:
    if why := probe.problem():
        pytest.skip(f"machines cannot boot here: {why}")
    lab = [sys.executable, "-m", "migrate.lab", "--vm", "--name", f"checkout-{os.getpid()}"]
    surroundings = os.environ | {"PYTHONPATH": f"{checkout}:{checkout / 'plugin'}"}

    def run(*words: str) -> str:
        done = subprocess.run([*lab, *words], cwd=checkout, env=surroundings, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        run("up")
        said = run("exec", "origin", "--", "python3", "-c", SEES)
        assert said.strip() == str(checkout / "migrate/cli.py")
        where = checkout.relative_to("/").parts[0]
        assert run("exec", "origin", "--", "sh", "-c", f"echo yes >/{where}/x && cat /{where}/x") == "yes\n"
    finally:
        run("down")
