"""Timers that were set to a time of day, in CRIU's images: for as long as they have to go."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from pycriu import images

from migrate.criu import timerfds
from migrate.errors import ProtocolError

OWNER = {"uid": 0, "euid": 0, "signum": 0, "pid_type": 0, "pid": 0}


def timer(number: int, flags: int, seconds: int) -> dict[str, Any]:
    value = {"clockid": 1, "ticks": 0, "vsec": seconds, "vnsec": 0, "isec": 0, "insec": 0}
    fields = {"id": number, "flags": "0x2", "fown": OWNER, "settime_flags": hex(flags), **value}
    return {"type": "TIMERFD", "id": number, "tfd": fields}


def periodic(number: int, ticks: int, value: int, interval: int, flags: int = 0) -> dict[str, Any]:
    one = timer(number, flags, 0)
    one["tfd"].update(ticks=ticks, vnsec=value, insec=interval)
    return one


def other(number: int) -> dict[str, Any]:
    return {
        "type": "EVENTFD",
        "id": number,
        "efd": {"id": number, "flags": "0x2", "fown": OWNER, "counter": 3},
    }


def write(folder: Path, *entries: dict[str, Any]) -> Path:
    path = folder / "files.img"
    with path.open("wb") as file:
        images.dump({"magic": "FILES", "entries": list(entries)}, file)
    return path


def flags(path: Path) -> dict[int, int]:
    entries = images.load(io.BytesIO(path.read_bytes()))["entries"]
    found = {one["id"]: one["tfd"]["settime_flags"] for one in entries if "tfd" in one}
    return {number: int(str(value), 0) for number, value in found.items()}


def test_they_go_on_for_as_long_as_they_have_to(tmp_path: Path) -> None:
    path = write(tmp_path, other(1), timer(2, 1, 20), timer(3, 1, 0), timer(4, 0, 20), other(5))
    before = images.load(io.BytesIO(path.read_bytes()))["entries"]
    timerfds.set_right(tmp_path)
    assert flags(path) == {2: 0, 3: 0, 4: 0}
    after = images.load(io.BytesIO(path.read_bytes()))["entries"]
    for one in (*before, *after):
        one.get("tfd", {}).pop("settime_flags", None)
    assert after == before


def test_one_that_is_told_when_the_clock_is_set_stays(tmp_path: Path) -> None:
    path = write(tmp_path, timer(2, 3, 20), timer(3, 3, 0))
    timerfds.set_right(tmp_path)
    assert flags(path) == {2: 3, 3: 2}


def test_a_periodic_one_that_has_expired_goes_on(tmp_path: Path) -> None:
    """One without ticks was not set, or nobody knows; one that is set goes on by itself."""
    path = write(
        tmp_path,
        periodic(2, 3, 0, 50),
        periodic(3, 0, 0, 50),
        periodic(4, 3, 7, 50),
        periodic(5, 1, 0, 0),
        periodic(6, 1, 0, 50, flags=1),
        periodic(7, 1, 0, 50, flags=3),
    )
    timerfds.set_right(tmp_path)
    entries = images.load(io.BytesIO(path.read_bytes()))["entries"]
    assert {one["id"]: one["tfd"]["vnsec"] for one in entries} == {2: 50, 3: 0, 4: 7, 5: 0, 6: 50, 7: 50}
    assert flags(path) == {2: 0, 3: 0, 4: 0, 5: 0, 6: 0, 7: 3}


def test_without_timers_nothing_is_touched(tmp_path: Path) -> None:
    timerfds.set_right(tmp_path)
    path = write(tmp_path, other(1))
    before = path.read_bytes(), path.stat().st_mtime_ns
    timerfds.set_right(tmp_path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_a_damaged_image(tmp_path: Path) -> None:
    path = write(tmp_path, timer(2, 1, 20), other(1))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ProtocolError, match=r"files\.img"):
        timerfds.set_right(tmp_path)
