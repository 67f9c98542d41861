from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.inventory.elf import build_id

ID = bytes(range(20))


def build_id_of(content: bytes) -> bytes:
    """For a whole file in memory."""
    return build_id(lambda offset, size: content[offset : offset + size])


def note(name: bytes, kind: int, content: bytes, order: str = "<") -> bytes:
    def padded(part: bytes) -> bytes:
        return part + bytes(-len(part) % 4)

    return struct.pack(order + "III", len(name), len(content), kind) + padded(name) + padded(content)


def elf(notes: bytes, *, wide: bool = True, order: str = "<") -> bytes:
    """A file of a header, one program header and *notes*."""
    identity = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]).ljust(12, b"\0")
    size, entry = (64, 56) if wide else (52, 32)
    offset = size + entry
    words = "HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"
    header = struct.pack(order + words, 3, 62, 1, 0, size, 0, 0, size, entry, 1, 0, 0, 0)
    if wide:
        segment = struct.pack(order + "IIQQQQQQ", 4, 4, offset, 0, 0, len(notes), len(notes), 4)
    else:
        segment = struct.pack(order + "IIIIIIII", 4, offset, 0, 0, len(notes), len(notes), 4, 4)
    return identity + header + segment + notes


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
def test_build_id_of_every_word_size_and_byte_order(wide: bool, order: str) -> None:
    notes = note(b"GNU\0", 1, bytes(16), order) + note(b"GNU\0", 3, ID, order)
    assert build_id_of(elf(notes, wide=wide, order=order)) == ID


def test_no_build_id() -> None:
    assert build_id_of(b"") == b""
    assert build_id_of(b"#!/bin/sh\n") == b""
    assert build_id_of(elf(b"")) == b""
    assert build_id_of(elf(note(b"GNU\0", 1, ID))) == b""
    assert build_id_of(elf(note(b"Xen\0", 3, ID))) == b""
    assert build_id_of(elf(note(b"GNU\0", 3, bytes(65)))) == b""


@given(st.integers(0, 200))
def test_a_cut_file_has_a_build_id_or_none(length: int) -> None:
    whole = elf(note(b"GNU\0", 3, ID))
    assert build_id_of(whole[:length]) == (ID if length >= len(whole) else b"")


@given(st.binary(max_size=300))
def test_garbage_has_none(content: bytes) -> None:
    assert isinstance(build_id_of(content), bytes)


@given(st.binary(max_size=400), st.sampled_from([1, 2]), st.sampled_from([1, 2]))
def test_garbage_behind_a_good_identity(content: bytes, wide: int, order: int) -> None:
    identity = b"\x7fELF" + bytes([wide, order, 1]).ljust(12, b"\0")
    assert len(build_id_of(identity + content)) <= 64


@given(st.integers(0, 63 + 56 + 36), st.binary(min_size=1, max_size=8))
def test_damage_anywhere(offset: int, damage: bytes) -> None:
    whole = bytearray(elf(note(b"GNU\0", 3, ID)))
    whole[offset : offset + len(damage)] = damage
    assert len(build_id_of(bytes(whole))) <= 64


def test_little_of_a_large_file_is_read() -> None:
    whole = elf(note(b"GNU\0", 3, ID)) + bytes(10 << 20)
    asked = []

    def read(offset: int, size: int) -> bytes:
        asked.append(size)
        return whole[offset : offset + size]

    assert build_id(read) == ID
    assert sum(asked) < 1000


def test_of_a_file_that_is_all_notes_no_more_is_read() -> None:
    """Empty notes cost the most time; each of 512 headers could name 64 kB of them."""
    notes = bytes(1 << 16)
    header = struct.pack("<IIQQQQQQ", 4, 4, 0, 0, 0, len(notes), len(notes), 4)
    asked = []

    def read(offset: int, size: int) -> bytes:
        asked.append(size)
        whole = elf(b"")[:56] + struct.pack("<HHHH", 512, 0, 0, 0) + header * 512 + notes
        return whole[offset : offset + size]

    assert build_id(read) == b""
    assert sum(asked) < 256 << 10


@pytest.mark.parametrize("size", [0, 39, 257, 65535])
def test_program_headers_of_no_real_size(size: int) -> None:
    whole = bytearray(elf(note(b"GNU\0", 3, ID)))
    assert build_id_of(bytes(whole)) == ID
    whole[54:56] = struct.pack("<H", size)
    assert build_id_of(bytes(whole)) == b""


def test_agrees_with_readelf() -> None:
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    program = Path(sys.executable).resolve()
    said = subprocess.run(["readelf", "-n", program], capture_output=True, text=True, check=True).stdout
    build_ids = [line.split()[-1] for line in said.splitlines() if "Build ID" in line]
    assert build_id_of(program.read_bytes()).hex() == (build_ids or [""])[0]
