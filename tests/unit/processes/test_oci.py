"""What runc and crun tell of containers, and that one that has gone is forgotten without its files.

The runtime here is a script: what a real one does is seen in the lab.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.errors import MigrateError
from migrate.processes import oci

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
#: As runc: what it forgets it removes with all that is in there.
SCRIPT = """#!/bin/sh
case "$1" in
--version) echo "runc version 7"; echo more;;
state) cat "{state}" 2>/dev/null || exit 1;;
delete) rm -rf "{home}";;
esac
"""


class Here:
    """A runtime with one container, which has ended; its root is mounted for CRIU."""

    def __init__(self, tmp_path: Path) -> None:
        self.bundle, self.home = tmp_path / "bundle", tmp_path / "run/runc/web"
        self.state, self.root = tmp_path / "state", self.home / "criu-root"
        self.file = self.bundle / "rootfs/precious"
        for directory in (self.file.parent, self.root):
            directory.mkdir(parents=True)
        self.file.write_text("data")
        program = tmp_path / "bin/runc"
        program.parent.mkdir()
        program.write_text(SCRIPT.format(state=self.state, home=self.home))
        program.chmod(0o755)

    def says(self, status: str) -> None:
        """What the runtime says of it."""
        said = {"status": status, "pid": 4711, "bundle": str(self.bundle), "id": "web"}
        self.state.write_text(json.dumps(said))

    def remove(self) -> None:
        """As an undo does."""
        oci.remove("runc", "web", str(self.bundle))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    """One, and the mounts that are left of it are taken away."""
    made = Here(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(oci, "_STATES", tmp_path / "run")
    yield made
    for place in (made.root, made.bundle / "criu-root"):
        subprocess.run(["umount", "-l", str(place)], check=False, stderr=subprocess.DEVNULL)


def bind(here: Here, place: Path) -> None:
    """Mount the container's root at *place*."""
    subprocess.run(["mount", "--bind", str(here.file.parent), str(place)], check=True)


def test_its_files_are_not_removed_by_the_mount_for_criu(here: Here) -> None:
    bind(here, here.root)
    here.says("stopped")
    here.remove()
    assert here.file.read_text() == "data" and not here.home.exists()
    here.remove()


def test_nor_where_crun_has_it(here: Here) -> None:
    place = here.bundle / "criu-root"
    place.mkdir()
    bind(here, place)
    here.remove()
    assert here.file.read_text() == "data" and not place.exists()


def test_one_that_runs_stays(here: Here) -> None:
    here.says("running")
    with pytest.raises(MigrateError, match="container web of runc runs"):
        here.remove()
    assert here.home.exists()


@pytest.mark.parametrize(("runtime", "name"), [("sh", "web"), ("runc", "../web"), ("runc", "")])
def test_what_is_no_container_is_not_removed(here: Here, runtime: str, name: str) -> None:
    with pytest.raises(MigrateError, match="no container is called"):
        oci.remove(runtime, name, str(here.bundle))
    assert here.home.exists()


def test_what_it_tells(here: Here) -> None:
    assert oci.version("runc") == "runc version 7" and oci.find("runc", "web") is None
    here.says("running")
    network = {"linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/netns/web"}]}}
    (here.bundle / "config.json").write_text(json.dumps(network))
    found = oci.find("runc", "web")
    assert found is not None
    assert (found.pid, found.bundle, found.network) == (4711, str(here.bundle), "/run/netns/web")
    assert oci.network(b"{}") == ""
