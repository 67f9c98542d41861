"""What travels beside CRIU's images: it is read as it was written, or refused with the reason."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from golden_icis import GOLDEN

from tcpcp.criu import carried
from tcpcp.criu.carried import CONNECTIONS, SOCKETS, Carried
from tcpcp.errors import CodecError

ICI = GOLDEN["established"]
HELD = Carried(
    "0123456789abcdef", [ICI], {ICI.tag: (1, 8), 7: (1, 6)}, {7: ({"SO_KEEPALIVE": 1}, "reno")}, [9]
)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_it_is_as_it_was_written(directory: int) -> None:
    HELD.write(directory)
    assert carried.read(directory) == HELD


def test_only_root_may_read_what_connections_had_in_flight(directory: int, tmp_path: Path) -> None:
    HELD.write(directory)
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in (SOCKETS, CONNECTIONS)} == {0o600}


def test_without_a_hook_at_the_dump_there_is_nothing(directory: int) -> None:
    assert carried.read(directory) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "format 2"),
        ({"name": "x; flush ruleset"}, "no name"),
        ({"holders": {"7": [1, 6]}}, "nobody holds"),
        ({"holders": None}, "AttributeError"),
        ({"listeners": {"7": [{"SO_KEEPALIVE": "much"}, "reno"]}}, "ValueError"),
    ],
)
def test_what_makes_no_sense_is_refused(
    directory: int, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    HELD.write(directory)
    said = json.loads((tmp_path / SOCKETS).read_text())
    (tmp_path / SOCKETS).write_text(json.dumps(said | change))
    with pytest.raises(CodecError, match=reason):
        carried.read(directory)


def test_a_record_that_is_cut_is_refused(directory: int, tmp_path: Path) -> None:
    HELD.write(directory)
    file = tmp_path / CONNECTIONS
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CodecError):
        carried.read(directory)
