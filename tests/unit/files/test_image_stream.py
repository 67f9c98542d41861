"""Images and levels of images, from one directory to another."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from harness.wait import eventually

from migrate.errors import ImageError, TransportError
from migrate.files import images
from migrate.files.images import Receiver, Sender
from migrate.link.payloads import Piece

TIMEOUT_S = 10.0
ID = "0" * 12


def write(directory: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(data)


def say(sender: Sender, directory: Path, files: dict[str, bytes]) -> None:
    write(directory, files)
    for name in files:
        sender.grew(name)


def read(directory: Path) -> dict[str, bytes]:
    found = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    (tmp_path / "origin").mkdir()
    return tmp_path / "origin"


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    (tmp_path / "destination").mkdir()
    return tmp_path / "destination"


def test_levels_arrive_nested(origin: Path, destination: Path) -> None:
    receiver = Receiver(destination)
    sender = Sender(origin, receiver.take)
    sender.start_ahead()
    say(sender, origin, {"level-1/pages-1.img": b"1" * 300_000, "level-1/pagemap-7.img": b"one"})
    write(origin, {"pages-1.img": b"of a dump that is thrown away"})
    sender.drain(TIMEOUT_S)
    assert sender.sent_bytes == 300_003
    write(origin, {"pages-1.img": b"0"})
    sender.start()
    say(sender, origin, {"level-2/pages-1.img": b"", "level-2/pagemap-7.img": b"two"})
    write(origin, {"dump.log": b"not an image", "other/x.img": b"nor this"})
    receiver.verify(sender.finish(ID))
    assert read(destination) == {
        "pages-1.img": b"0",
        "parent/pages-1.img": b"",
        "parent/pagemap-7.img": b"two",
        "parent/parent/pages-1.img": b"1" * 300_000,
        "parent/parent/pagemap-7.img": b"one",
    }


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "level-1/../x",
        "level-1/level-2/x",
        "/x",
        "level-1/",
        "level-0/x",
        "other/x",
        "level-10/x",
        ".x",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(destination: Path, name: str) -> None:
    with pytest.raises(ImageError, match="not an image's name"):
        Receiver(destination).take(Piece(name=name, data=b"x"))
    assert not list(destination.iterdir())


def test_a_missing_level_is_refused(origin: Path, destination: Path) -> None:
    receiver = Receiver(destination)
    sender = Sender(origin, receiver.take)
    say(sender, origin, {"level-2/pages-1.img": b"x"})
    manifest = sender.finish(ID)
    with pytest.raises(ImageError, match="arrange"):
        receiver.verify(manifest)


def test_an_image_that_is_written_anew_is_noticed(origin: Path) -> None:
    sender = Sender(origin, lambda _: None)
    write(origin, {"a.img": b"long"})
    sender.start()
    eventually(lambda: sender.sent_bytes == 4, "all is sent")
    write(origin, {"a.img": b"x"})
    with pytest.raises(ImageError, match="written anew"):
        sender.finish(ID)


def test_drain_and_finish_tell_that_sending_failed(origin: Path) -> None:
    def lost(_: Piece) -> None:
        raise TransportError("gone")

    sender = Sender(origin, lost)
    say(sender, origin, {"a.img": b"x"})
    sender.start()
    with pytest.raises(TransportError):
        sender.drain(TIMEOUT_S)
    with pytest.raises(TransportError):
        sender.finish(ID)


def test_what_we_write_is_not_looked_for(origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only CRIU's files are, and only while CRIU writes."""
    looks: list[Path] = []
    scandir = images.os.scandir
    monkeypatch.setattr(images.os, "scandir", lambda path: (looks.append(path), scandir(path))[1])
    got: list[Piece] = []
    sender = Sender(origin, got.append)
    sender.start_ahead()
    for number in range(5):
        with (origin / "pages.img").open("ab") as file:
            file.write(b"%d" % number)
        sender.grew("pages.img")
        sender.drain(TIMEOUT_S)
    assert (looks, [(one.offset, one.data) for one in got]) == ([], [(n, b"%d" % n) for n in range(5)])
    write(origin, {"pages.img": b"0123456", "criu.img": b"x"})  # not told: not sent before the end
    sender.start()
    eventually(lambda: len(looks) > 3, "it has looked")
    assert [one.name for one in got[5:]] == ["criu.img"]
    assert {one.name: one.size_bytes for one in sender.finish(ID).files} == {"criu.img": 1, "pages.img": 7}


def test_who_says_that_something_grew_does_not_wait_for_a_busy_link(origin: Path) -> None:
    room, got = threading.Semaphore(0), list[Piece]()

    def busy(piece: Piece) -> None:
        assert room.acquire(timeout=TIMEOUT_S)
        got.append(piece)

    sender = Sender(origin, busy)
    sender.start_ahead()
    for number in range(50):
        say(sender, origin, {"pages.img": b"x" * (number + 1)})
    assert got == []
    with pytest.raises(ImageError, match="in time"):
        sender.drain(0.05)
    room.release(50)
    sender.drain(TIMEOUT_S)
    assert (sender.sent_bytes, len(got) <= 50) == (50, True)
    sender.stop()


def test_a_manifest_of_another_version_is_refused_with_what_is_read(destination: Path) -> None:
    with pytest.raises(ImageError, match="has version 7, this migrate reads version 1"):
        Receiver(destination).verify(images.Manifest(version=7))
