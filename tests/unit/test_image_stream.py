"""Images and levels of images, from one directory to another."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate.errors import ImageError, TransportError
from migrate.files.images import Receiver, Sender
from migrate.link.payloads import Piece

TIMEOUT_S = 10.0
ID = "0" * 12


def write(directory: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(data)


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
    write(origin, {"level-1/pages-1.img": b"1" * 300_000, "level-1/pagemap-7.img": b"one"})
    write(origin, {"pages-1.img": b"of a dump that is thrown away"})
    sender.drain(TIMEOUT_S)
    assert sender.sent_bytes == 300_003
    write(origin, {"pages-1.img": b"0"})
    sender.start()
    write(origin, {"level-2/pages-1.img": b"", "level-2/pagemap-7.img": b"two"})
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
    write(origin, {"level-2/pages-1.img": b"x"})
    manifest = Sender(origin, receiver.take).finish(ID)
    with pytest.raises(ImageError, match="arrange"):
        receiver.verify(manifest)


def test_an_image_that_is_written_anew_is_noticed(origin: Path) -> None:
    sender = Sender(origin, lambda _: None)
    write(origin, {"a.img": b"long"})
    sender.start()
    sender.drain(TIMEOUT_S)
    write(origin, {"a.img": b"x"})
    with pytest.raises(ImageError, match="written anew"):
        sender.finish(ID)


def test_drain_and_finish_tell_that_sending_failed(origin: Path) -> None:
    def lost(_: Piece) -> None:
        raise TransportError("gone")

    sender = Sender(origin, lost)
    write(origin, {"a.img": b"x"})
    sender.start()
    with pytest.raises(TransportError):
        sender.drain(TIMEOUT_S)
    with pytest.raises(TransportError):
        sender.finish(ID)
