"""Images that were damaged on their way: refused whatever it is that changed, and told as ImageError."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from golden_icis import GOLDEN

from migrate import problems
from migrate.errors import ImageError, MigrateError
from migrate.files.images import Receiver, Sender
from migrate.link import failure
from migrate.link.payloads import Piece
from migrate.pb.manifest_pb2 import Manifest
from tcpcp.criu.completion import Completion
from tcpcp.record import codec

ID = "0" * 12
IMAGES = {"pages-1.img": bytes(range(256)) * 2000, "inventory.img": b"inventory"}


@pytest.fixture
def sent(tmp_path: Path) -> tuple[list[Piece], Manifest]:
    """What an origin sends."""
    for name, data in IMAGES.items():
        (tmp_path / name).write_bytes(data)
    chunks: list[Piece] = []
    sender = Sender(tmp_path, chunks.append)
    sender.start()
    manifest = sender.finish(ID)
    assert len(chunks) >= len(IMAGES)
    return chunks, manifest


@pytest.fixture
def receiver(tmp_path: Path) -> Receiver:
    (tmp_path / "there").mkdir()
    return Receiver(tmp_path / "there")


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def whole(chunks: list[Piece], name: str) -> Piece:
    return next(chunk for chunk in chunks if chunk.name == name and chunk.data)


def test_undamaged(sent: tuple[list[Piece], Manifest], receiver: Receiver) -> None:
    chunks, manifest = sent
    for chunk in chunks:
        receiver.take(chunk)
    receiver.verify(manifest)


@pytest.mark.parametrize("at", [0, 1000, -1])
@pytest.mark.parametrize("name", list(IMAGES))
def test_a_flipped_bit(sent: tuple[list[Piece], Manifest], receiver: Receiver, name: str, at: int) -> None:
    chunks, manifest = sent
    damaged = whole(chunks, name)
    damaged.data = flipped(damaged.data, at % len(damaged.data))
    for chunk in chunks:
        receiver.take(chunk)
    with pytest.raises(ImageError, match=f"did not arrive as they were sent: {name}$") as caught:
        receiver.verify(manifest)
    assert "Try again" in caught.value.problem.hint


def test_a_lost_image(sent: tuple[list[Piece], Manifest], receiver: Receiver) -> None:
    chunks, manifest = sent
    for chunk in chunks:
        if chunk.name != "inventory.img":
            receiver.take(chunk)
    with pytest.raises(ImageError, match=r"inventory\.img"):
        receiver.verify(manifest)


def test_a_lost_piece(sent: tuple[list[Piece], Manifest], receiver: Receiver) -> None:
    chunks, manifest = sent
    whole(chunks, "pages-1.img").offset += 1
    with pytest.raises(ImageError, match=r"pages-1\.img: a piece at"):
        for chunk in chunks:
            receiver.take(chunk)


def test_an_image_too_much(sent: tuple[list[Piece], Manifest], receiver: Receiver) -> None:
    chunks, manifest = sent
    for chunk in [*chunks, Piece(name="fs-1.img", data=b"x")]:
        receiver.take(chunk)
    with pytest.raises(ImageError, match=r"fs-1\.img"):
        receiver.verify(manifest)


def icis() -> Iterator[bytes]:
    data = b"".join(codec.dumps(ici) for ici in GOLDEN.values())
    for at in range(0, len(data), 7):
        yield flipped(data, at)
    for size in range(1, len(data), 13):
        yield data[:size]


def test_damaged_icis(tmp_path: Path) -> None:
    """What completes CRIU's images refuses them, before it has changed one; the driver is told."""
    for data in icis():
        try:
            completing = Completion(tmp_path)
            with problems.step("compile", "destination"):
                completing.take(data)
                completing.finish()
        except MigrateError as error:
            if error.problem.kind == "FileNotFoundError":
                # A cut between two ICIs leaves a good image of fewer; it is the manifest that notices.
                assert "inventory.img" in str(error)
                assert data in b"".join(codec.dumps(ici) for ici in GOLDEN.values())
                continue
            assert error.problem.kind in ("CodecError", "IciError")
            assert isinstance(failure.from_failure(failure.to_failure(error)), ImageError)
        else:
            raise AssertionError("taken")
    assert {path.name.rpartition("-")[0] for path in tmp_path.iterdir()} == {"tcp-stream"}
