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

OVERLAYS = """
import io, os, subprocess, sys
from pathlib import Path
from migrate.files import layer
from migrate.files.written import Written
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


def sent(written, there, **more):
    packed = io.BytesIO()
    written.pack(packed, **more)
    layer.unpack(io.BytesIO(packed.getvalue()), str(there))
    return len(packed.getvalue())

upper, merged = overlay("here")
written = Written(str(upper), str(merged))
_, there = overlay("there")
"""
ALL = """
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
sent(written, there)
assert seen(there) == seen(merged)
assert (there / "twin").samefile(there / "again/new")
assert not (there / "again/old").exists() and (there / "kept").read_text() == "of the image"
assert (there / "sparse").stat().st_blocks < 1024
"""
#: Times are made old, so that they tell; a change makes them new.
SINCE = """
import mmap, time
from migrate.files import written as module
module.SETTLED_NS = 0
(merged / "a/b").mkdir(parents=True)
for name in ("same", "changed", "ended", "a/b/deep", "shared", "was-file"):
    (merged / name).write_text(name * 1000)
(merged / "large").write_bytes(os.urandom(1 << 20))
os.link(merged / "same", merged / "a/twin")
(merged / "was-folder/in").mkdir(parents=True)
(merged / "again/ours").write_text("ours")
os.symlink("changed", merged / "link")
time.sleep(0.02)
sent(written, there, running=True)
assert seen(there) == seen(merged)
inode = (there / "large").stat().st_ino

(merged / "changed").write_text("otherwise")
os.unlink(merged / "ended")
os.unlink(merged / "was-file")
(merged / "was-file/below").mkdir(parents=True)
subprocess.run(["rm", "-r", merged / "was-folder", merged / "kept", merged / "again", merged / "link"], check=True)
(merged / "was-folder").write_text("file now")
(merged / "again").mkdir()
(merged / "again/anew").write_text("anew")
os.rename(merged / "a/b", merged / "moved")
with open(merged / "a/twin", "a") as file:
    file.write("more")
os.chmod(merged / "shared", 0o600)
os.symlink("large", merged / "link")
assert sent(written, there) < 1 << 19
assert seen(there) == seen(merged), set(seen(there).items()) ^ set(seen(merged).items())
assert (there / "large").stat().st_ino == inode
assert (there / "same").samefile(there / "a/twin")
assert not (there / "again/ours").exists() and not (there / "again/old").exists()

# Nothing tells of what is written to shared memory.
file = open(merged / "shared", "r+b")
memory = mmap.mmap(file.fileno(), 0)
memory[0] = 1
time.sleep(0.02)
sent(written, there)
assert sent(written, there) <= 10240
memory[:9] = b"BY MEMORY"
sent(written, there, mapped=[str(merged / "shared")])
assert seen(there) == seen(merged)
"""
#: A container that puts a link where a directory was, while its files are packed.
RACE = """
(merged / "way").mkdir()
(merged / "way/file").write_text("mine")
found = dict(written._found(running=True))
os.rename(merged / "way", merged / "before")
(top / "secrets").mkdir()
(top / "secrets/file").write_text("of the host")
os.symlink(top / "secrets", merged / "way")
packed = io.BytesIO()
written._found = lambda running: iter(found.items())
written.pack(packed, running=True)
assert b"of the host" not in packed.getvalue()
"""


@pytest.mark.parametrize("script", [ALL, SINCE, RACE], ids=["all", "since", "race"])
def test_it_is_the_same_there(tmp_path: Path, script: str) -> None:
    """All of it; later what has changed since, and no more; and nothing that is not the container's."""
    command = ["unshare", "--mount", sys.executable, "-c", OVERLAYS + script, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def archive(*entries: tuple[str, str, str]) -> io.BytesIO:
    """One with these: kind (a type of tar's), name, and where a link leads."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as made:
        for kind, name, leads in entries:
            one = tarfile.TarInfo(name)
            one.type, one.linkname = kind.encode(), leads
            made.addfile(one, io.BytesIO())
    return io.BytesIO(content.getvalue())


@pytest.mark.parametrize("name", ["/etc/passwd", "../above", "a/../../above"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "root").mkdir()
    with pytest.raises(ImageError, match="bad name"):
        layer.unpack(archive(("0", name, "")), str(tmp_path / "root"))
    assert not (tmp_path / "above").exists()


def test_a_link_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    made = archive(("2", "way", str(tmp_path / "outside")), ("0", "way/file", ""))
    with pytest.raises(Exception, match="cannot be written"):
        layer.unpack(made, str(tmp_path / "root"))
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_hard_link_to_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(ImageError, match="bad name"):
        layer.unpack(archive(("1", "stolen", "../secret")), str(tmp_path / "root"))


def test_an_archive_that_is_cut_is_an_error_of_the_images(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="makes no sense"):
        layer.unpack(io.BytesIO(b"no archive" * 100), str(tmp_path))


def test_all_that_is_in_a_directory_goes(tmp_path: Path) -> None:
    (tmp_path / "one/two").mkdir(parents=True)
    (tmp_path / "link").symlink_to("/etc")
    layer.clear(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
