"""System calls that the dump has ended, in CRIU's images: those that are named begin again, and nothing else."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from pycriu.images import pb

from migrate.criu import ended_calls, records
from migrate.errors import ProtocolError
from migrate.pb.session_pb2 import EndedCall
from migrate.processes import waits

PC = 0x7F0000001002
POLL = EndedCall(tid=7, number=waits.POLL)


def write(folder: Path, *, machine: str = "X86_64", **registers: int) -> bytes:
    """An image of thread 7, whose poll(2) has ended with EINTR, but for what is said."""
    entry = pb.core_entry(mtype=pb.core_entry.march.Value(machine))
    wanted = {"ax": waits.ENDED, "orig_ax": waits.POLL, "ip": PC, "di": 1, "si": 2, "cs": waits.CODE_64}
    for field in entry.thread_info.gpregs.DESCRIPTOR.fields[:27]:
        setattr(entry.thread_info.gpregs, field.name, (wanted | registers).get(field.name, 0))
    message = entry.SerializePartialToString()
    data = b"magic123" + struct.pack("<I", len(message)) + message + b"rest"
    (folder / "core-7.img").write_bytes(data)
    return data


def registers(folder: Path) -> Any:
    data = (folder / "core-7.img").read_bytes()
    assert data.endswith(b"rest")
    return next(records.read(data, pb.core_entry, ""))[0].thread_info.gpregs


@pytest.mark.parametrize("by", [waits.POLL, waits.RESTART])
def test_one_begins_again(tmp_path: Path, by: int) -> None:
    write(tmp_path, orig_ax=by)
    ended_calls.begin_again(tmp_path, [POLL, EndedCall(tid=8, number=waits.POLL)])
    now = registers(tmp_path)
    assert (now.ax, now.ip, now.di, now.si) == (waits.POLL, PC - 2, 1, 2)


@pytest.mark.parametrize(
    "otherwise",
    [{"ax": 1}, {"orig_ax": waits.FUTEX}, {"cs": 0x23}, {"machine": "AARCH64"}],
    ids=lambda one: next(iter(one)),
)
def test_what_has_not_ended_so_stays(tmp_path: Path, otherwise: Any) -> None:
    data = write(tmp_path, **otherwise)
    ended_calls.begin_again(tmp_path, [POLL])
    assert (tmp_path / "core-7.img").read_bytes() == data


def test_a_call_of_another_kind_stays(tmp_path: Path) -> None:
    """An origin may say what it likes."""
    data = write(tmp_path, orig_ax=0)
    ended_calls.begin_again(tmp_path, [EndedCall(tid=7, number=0)])
    assert (tmp_path / "core-7.img").read_bytes() == data


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "core-7.img").write_bytes(b"magic123")
    with pytest.raises(ProtocolError):
        ended_calls.begin_again(tmp_path, [POLL])
