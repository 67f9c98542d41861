"""A file that is sent while it is made, and read while it comes."""

from __future__ import annotations

import io
import os
import tarfile
import threading
from pathlib import Path

import pytest

from migrate.errors import ImageError, MigrateError
from migrate.files import stream
from migrate.files.written import Written
from migrate.link.payloads import CHUNK_BYTES, Piece
from migrate.watch import nothing

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and attributes need root")


def pieces(content: bytes, name: str = stream.LAYER) -> list[Piece]:
    """As they are sent."""
    found: list[Piece] = []
    sending = stream.Sending(name, found.append)
    sending.write(content)
    sending.end()
    return found


def test_it_is_cut_into_pieces_that_follow_each_other() -> None:
    content = os.urandom(CHUNK_BYTES * 2 + 5)
    found = pieces(content)
    assert b"".join(one.data for one in found) == content
    assert [one.offset for one in found] == [0, CHUNK_BYTES, CHUNK_BYTES * 2]
    assert [one.last for one in found] == [False, False, True]


def test_a_directory_goes_through_it(tmp_path: Path) -> None:
    (tmp_path / "here/below").mkdir(parents=True)
    (tmp_path / "here/below/much").write_bytes(os.urandom(3 << 20))
    (tmp_path / "there").mkdir()
    taking = stream.Unpacking(str(tmp_path / "there"), nothing)
    sending = stream.Sending(stream.LAYER, taking.take)
    Written("", str(tmp_path / "here")).pack(sending, running=True)
    sending.end()
    assert (tmp_path / "there/below/much").read_bytes() == (tmp_path / "here/below/much").read_bytes()


def test_what_is_wrong_with_it_is_said_by_who_reads_it(tmp_path: Path) -> None:
    """However much is still on its way."""
    taking = stream.Unpacking(str(tmp_path), nothing)
    with pytest.raises(ImageError, match="makes no sense"):
        for one in pieces(os.urandom(CHUNK_BYTES * 8)):
            taking.take(one)
    taking.close()


def test_no_room_is_said_by_who_reads_it(tmp_path: Path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        one = tarfile.TarInfo("missing/file")
        archive.addfile(one)
    taking = stream.Unpacking(str(tmp_path), nothing)
    with pytest.raises(MigrateError, match="cannot be written there"):
        for each in pieces(content.getvalue()):
            taking.take(each)


def test_a_piece_that_does_not_follow_is_refused(tmp_path: Path) -> None:
    taking = stream.Unpacking(str(tmp_path), nothing)
    with pytest.raises(ImageError, match="expected at 0"):
        taking.take(Piece(name=stream.LAYER, offset=5, data=b"x"))
    taking.close()


def test_who_stops_in_the_middle_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    taking = stream.Unpacking(str(tmp_path), nothing)
    taking.take(Piece(name=stream.LAYER, data=bytes(512)))
    taking.close()
    assert threading.active_count() == before


def test_who_is_called_off_waits_no_longer_for_a_reader() -> None:
    def called_off() -> None:
        raise MigrateError("called off")

    feed = stream.Feed(called_off)
    try:
        with pytest.raises(MigrateError, match="called off"):
            feed.take(Piece(name=stream.IMAGE, data=bytes(1 << 20)))
    finally:
        feed.close()
        os.close(feed.reader)
