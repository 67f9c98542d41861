"""What a container has written, from one overlay to another. Real overlays, in a mount namespace of our own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from migrate.errors import ImageError
from migrate.files import layer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="overlays need root")

SCRIPT = """
import os, subprocess, sys
from pathlib import Path
from migrate.files import layer
top = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "overlays", top], check=True)
lower = top / "lower"
(lower / "gone").mkdir(parents=True)
(lower / "again/old").mkdir(parents=True)
(lower / "kept").write_text("of the image")
(lower / "gone/file").write_text("x")
(lower / "removed").write_text("x")
(lower / "set").write_text("program")
os.chmod(lower / "set", 0o4755)

def overlay(name):
    places = [top / name / one for one in ("upper", "work", "merged")]
    for one in places:
        one.mkdir(parents=True)
    options = f"lowerdir={lower},upperdir={places[0]},workdir={places[1]}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, places[2]], check=True)
    return places[0], places[2]

def seen(merged):
    found = {}
    for directory, below, names in os.walk(merged):
        for name in (*below, *names):
            path = Path(directory, name)
            status = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            content = os.readlink(path) if path.is_symlink() else content
            attributes = {one: os.getxattr(path, one, follow_symlinks=False)
                          for one in os.listxattr(path, follow_symlinks=False)}
            kind = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev)
            found[str(path.relative_to(merged))] = (kind, content, attributes)
    return found

upper, merged = overlay("here")
subprocess.run(["rm", "-r", merged / "gone", merged / "removed", merged / "again"], check=True)
(merged / "again").mkdir()
(merged / "again/new").write_text("new")
os.setxattr(merged / "again/new", "trusted.one", b"\\0\\xff")
os.link(merged / "again/new", merged / "twin")
os.symlink("/etc", merged / "link")
os.mkfifo(merged / "fifo")
(merged / "set").write_text("another")
os.chmod(merged / "set", 0o4755)
os.chown(merged / "set", 12, 34)
os.chmod(merged / "set", 0o4755)
with open(merged / "sparse", "wb") as file:
    file.truncate(1 << 20)
    file.seek(1 << 19)
    file.write(b"in the middle")
layer.pack(str(upper), str(merged), top / "layer.tar")
_, there = overlay("there")
layer.unpack(top / "layer.tar", str(there))
assert seen(there) == seen(merged)
assert (there / "twin").samefile(there / "again/new")
assert not (there / "again/old").exists() and (there / "kept").read_text() == "of the image"
assert (there / "sparse").stat().st_blocks < 1024
"""


def test_all_of_it_is_the_same_there(tmp_path: Path) -> None:
    command = ["unshare", "--mount", sys.executable, "-c", SCRIPT, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def archive(tmp_path: Path, *entries: tuple[str, str, str]) -> Path:
    """One with these: kind (a type of tar's), name, and where a link leads."""
    path = tmp_path / "made.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as made:
        for kind, name, leads in entries:
            one = tarfile.TarInfo(name)
            one.type, one.linkname = kind.encode(), leads
            made.addfile(one, io.BytesIO())
    return path


@pytest.mark.parametrize("name", ["/etc/passwd", "../above", "a/../../above"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "root").mkdir()
    with pytest.raises(ImageError, match="bad name"):
        layer.unpack(archive(tmp_path, ("0", name, "")), str(tmp_path / "root"))
    assert not (tmp_path / "above").exists()


def test_a_link_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    made = archive(tmp_path, ("2", "way", str(tmp_path / "outside")), ("0", "way/file", ""))
    with pytest.raises(Exception, match="cannot be written"):
        layer.unpack(made, str(tmp_path / "root"))
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_hard_link_to_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(ImageError, match="bad name"):
        layer.unpack(archive(tmp_path, ("1", "stolen", "../secret")), str(tmp_path / "root"))


def test_an_archive_that_is_cut_is_an_error_of_the_images(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    made = archive(tmp_path, ("0", "file", ""))
    made.write_bytes(b"no archive" * 100)
    with pytest.raises(ImageError, match="makes no sense"):
        layer.unpack(made, str(tmp_path / "root"))


def test_all_that_is_in_a_directory_goes(tmp_path: Path) -> None:
    (tmp_path / "one/two").mkdir(parents=True)
    (tmp_path / "link").symlink_to("/etc")
    layer.clear(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
