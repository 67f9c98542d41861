"""A journal that somebody removes is put back by who has it open; one that is forgotten by nobody."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from migrate import place
from migrate.journal import journal
from migrate.journal.journal import Journal
from migrate.recovery import records, unclaimed
from migrate.recovery.entries import Images, Isolation
from migrate.recovery.guardian import Guardian
from migrate.recovery.unclaimed import remove as remove_left

ID = "0123456789ab"
OTHER = "0123456789ac"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(place, "STATE", tmp_path / "migrate")
    monkeypatch.setattr(place, "MEMORY", (tmp_path,))
    return tmp_path / "migrate"


def made() -> Journal:
    return Journal(ID, role="destination", pid=42, other_host="there")


def remove(state: Path) -> None:
    """As a cleaner of old files would."""
    for one in state.iterdir():
        shutil.rmtree(one)


def test_its_owner_writes_on(state: Path) -> None:
    written = made()
    written.did(Images("/a"))
    remove(state)
    written.did(Isolation(ID))
    assert records.read(written.directory).entries == [Images("/a"), Isolation(ID)]
    remove(state)
    assert records.of(written).entries == [Images("/a"), Isolation(ID)]
    with journal.owned(written.directory) as owned:
        assert not owned
    written.remove()
    assert list(state.iterdir()) == []


def cover(state: Path, mode: int = 0o700) -> Path:
    """As by a mount over it; where it is now."""
    below = state.with_name("below")
    state.rename(below)
    state.mkdir()
    state.chmod(mode)
    return below


def test_one_that_is_covered_is_put_where_it_is_seen(state: Path) -> None:
    written = made()
    written.did(Images("/a"))
    below = cover(state)
    written.did(Isolation(ID))
    assert records.read(written.directory).entries == [Images("/a"), Isolation(ID)]
    assert list(below.iterdir()) == []
    written.remove()
    assert list(state.iterdir()) == []


def test_where_it_cannot_be_seen_its_owner_has_it_all_the_same(state: Path) -> None:
    """What covers it is not root's alone."""
    written = made()
    written.did(Images("/a"))
    below = cover(state, 0o777)
    written.did(Isolation(ID))
    assert records.of(written).entries == [Images("/a"), Isolation(ID)]
    assert list(state.iterdir()) == []
    assert records.read(below / ID).entries == [Images("/a"), Isolation(ID)]
    written.remove()
    assert list(below.iterdir()) == []


OWNER = """
import os, pathlib, shutil, sys
from migrate import place
place.STATE, images = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
from migrate.journal.journal import Journal
from migrate.recovery.entries import Images
from migrate.recovery.guardian import Guardian
from migrate.recovery.unclaimed import remove as remove_left
written = Journal(sys.argv[3], role="destination", pid=42, other_host="there")
guardian = Guardian(written.directory)
written.did(Images(str(images)))
written.hold(*place.make_images(images))
guardian.wait_ready()
guardian.hold_images(images)
if sys.argv[4] == "and goes on": shutil.rmtree(written.directory); written.state("PREPARED")
print(guardian._process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["before it dies", "and goes on", "covered", "covered by another's"])
def test_its_guardian_undoes_it(state: Path, tmp_path: Path, how: str) -> None:
    """Also when it was removed while its owner lived, who has or has not put it back."""
    images = tmp_path / f"migrate-{ID}"
    command = [sys.executable, "-c", OWNER, str(state), str(images), ID, how]
    owner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdout is not None and owner.stdin is not None
    guardian = os.pidfd_open(int(owner.stdout.readline()))
    (images / "pages").write_bytes(b"secret")
    assert remove_left() == []
    below = state
    if how == "before it dies":
        remove(state)
    elif how != "and goes on":
        below = cover(state, 0o777 if how == "covered by another's" else 0o700)
    assert remove_left() == []
    assert images.exists()
    owner.kill()
    owner.communicate()
    assert select.select([guardian], [], [], 30)[0], "the guardian has not ended"
    os.close(guardian)
    assert not images.exists()
    assert list(state.iterdir()) == list(below.iterdir()) == []


def test_one_that_is_forgotten_is_not_put_back(state: Path) -> None:
    """As by --recover while a guardian waits for it: it has carried it out already."""
    written = made()
    written.did(Images(str(state.parent / "images")))
    guardian = Guardian(written.directory)
    guardian.wait_ready()
    journal.forget(written.directory)
    (state.parent / "images").mkdir()
    written.abandon()
    assert guardian._process.wait(timeout=20) == 0
    assert (state.parent / "images").exists()
    assert list(state.iterdir()) == []


def test_images_without_a_journal_are_removed_unless_somebody_needs_them(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unclaimed.isolation, "remove", lambda name: None)
    monkeypatch.setattr(unclaimed.switch, "make", lambda *_: Mock())
    left, alive, known = (tmp_path / f"migrate-{one}" for one in (ID, OTHER, "0123456789ad"))
    for one in (left, known, tmp_path / "migrate-of-somebody"):
        one.mkdir(mode=0o700)
    held = place.make_images(alive)
    other = Journal(known.name.removeprefix("migrate-"), role="origin", pid=1, other_host="there")
    said = remove_left()
    assert len(said) == 1 and ID in said[0] and str(left) in said[0]
    assert not left.exists()
    assert alive.exists() and known.exists() and (tmp_path / "migrate-of-somebody").exists()
    for one in held:
        os.close(one)
    assert OTHER in remove_left()[0]
    assert not alive.exists()
    other.remove()
