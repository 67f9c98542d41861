"""The directory of the images is chosen once: what the journal names is what is made, and removed by an undo."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from migrate import place
from migrate.destination.incoming import Incoming
from migrate.errors import MigrateError
from migrate.journal.journal import Journal
from migrate.origin import prepare
from migrate.origin.move import Held
from migrate.pb import session_pb2 as pb
from migrate.recovery import records
from migrate.recovery.entries import Images
from migrate.watch import Watch

ID = "0123456789ab"


@pytest.fixture
def roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Two memory file systems, of which each time that one is asked the other has the most space."""
    made = [tmp_path / "shm", tmp_path / "run"]
    for one in made:
        one.mkdir()
    turns: Iterator[Path] = iter(made * 10)
    monkeypatch.setattr(place, "STATE", tmp_path / "migrate")
    monkeypatch.setattr(place, "image_root", lambda: next(turns))
    return made


def test_what_the_destination_journals_is_what_it_makes(roots: list[Path]) -> None:
    journal = Journal(ID, role="destination", pid=1, other_host="there")
    here = Incoming(pb.Prepare(), journal)
    assert [str(here.directory)] == [one.path for one in records.read(journal.directory).of(Images)]
    assert here.directory.is_dir() and here.directory.stat().st_mode & 0o777 == 0o700
    assert [list(one.iterdir()) for one in roots] == [[here.directory], []]


def test_what_the_origin_journals_is_what_it_makes(roots: list[Path]) -> None:
    journal = Journal(ID, role="origin", pid=1, other_host="there")
    move: Any = SimpleNamespace(
        migration_id=ID,
        watch=Watch(),
        ours=ExitStack(),
        held=Held(),
        subject=SimpleNamespace(tasks=list),
        request=SimpleNamespace(memory="ahead"),
    )
    directory = prepare._images(move, journal).directory
    move.held.let_go()
    move.ours.close()
    assert [str(directory)] == [one.path for one in records.read(journal.directory).of(Images)]
    assert directory.is_dir() and [list(one.iterdir()) for one in roots] == [[directory], []]


@pytest.mark.parametrize(
    ("options", "said"), [("size=16k", "is full"), ("size=1m,ro", "is mounted read-only"), ("size=1m", "")]
)
def test_what_cannot_be_written_to_is_told_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: str, said: str
) -> None:
    monkeypatch.setattr(place, "STATE", tmp_path / "migrate")
    monkeypatch.setattr(place, "image_root", lambda: Path("/dev/shm"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(tmp_path)], check=True)
    try:
        assert place.problems() == ([f"{tmp_path} {said}"] if said else [])
        monkeypatch.setattr(place, "image_root", lambda: tmp_path)
        images = [f"{tmp_path}, where images go, is mounted read-only"] if "read-only" in said else []
        assert place.problems()[: len(images)] == images
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_images_below_something_are_not_taken_for_removed(tmp_path: Path) -> None:
    """Who holds them removes them; who does not says that he cannot."""
    directory = tmp_path / f"migrate-{ID}"
    held = place.make_images(directory)
    noted = Images(str(directory), place.device_of(directory))
    (directory / "pages").write_bytes(b"secret")
    kept = os.dup(held[1])
    subprocess.run(["mount", "-t", "tmpfs", "none", str(tmp_path)], check=True)
    try:
        noted.undo()
        assert not [*Path(f"/proc/self/fd/{kept}").iterdir()]
        for one in (*held, kept):
            os.close(one)
        with pytest.raises(MigrateError, match="something is mounted over"):
            noted.undo()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    noted.undo()
