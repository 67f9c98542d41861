"""What the kernel answers, damaged: an error of our own, never an endless loop or an exception of Python's."""

from __future__ import annotations

import errno
import struct

import pytest

from migrate.processes import unix_diag
from tcpcp.endpoint import same_path
from tcpcp.errors import KernelError
from tcpcp.kernel import bpf, diag, nft_elements, routing
from tcpcp.kernel import btf as btf_

BY_FAMILY, ERROR, DONE = 20, 2, 3


def message(kind: int, body: bytes, length: int | None = None) -> bytes:
    size = 16 + len(body) if length is None else length
    return struct.pack("=IHHII", size, kind, 0, 1, 0) + body


def dumped(part: bytes, least: int = 4) -> tuple[list[bytes], bool]:
    """The messages of one datagram, and whether it was the last."""
    found, asking = [], diag.sockets(part, least)
    try:
        while True:
            _, begin, end = next(asking)
            found.append(part[begin:end])
    except StopIteration as stop:
        return found, stop.value


def test_a_dump() -> None:
    part = message(BY_FAMILY, b"abcd") + message(BY_FAMILY, b"abcdefgh")
    assert dumped(part) == ([b"abcd", b"abcdefgh"], False)
    assert dumped(part + message(DONE, bytes(4))) == ([b"abcd", b"abcdefgh"], True)


@pytest.mark.parametrize(
    "part",
    [
        b"",
        message(BY_FAMILY, b"abcd", length=0),
        message(BY_FAMILY, b"abcd", length=15),
        message(BY_FAMILY, b"abcd", length=24),
        message(BY_FAMILY, b"abcd", length=2**32 - 1),
        message(BY_FAMILY, b"abcd")[:-1],
        message(BY_FAMILY, b"abcd") + b"\0" * 15,
        message(BY_FAMILY, b"abc"),  # too short for what was asked
        message(ERROR, struct.pack("=i", -(2**31))),
        message(ERROR, struct.pack("=i", 5)),
    ],
)
def test_a_damaged_dump(part: bytes) -> None:
    with pytest.raises(OSError) as caught:
        dumped(part)
    assert caught.value.errno == errno.EBADMSG


def test_a_dump_that_failed() -> None:
    with pytest.raises(OSError) as caught:
        dumped(message(ERROR, struct.pack("=i", -errno.ENOENT)))
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        (b"", errno.EBADMSG),
        (message(ERROR, b"abc"), errno.EBADMSG),
        (message(ERROR, struct.pack("=i", 0)), errno.EBADMSG),
        (message(ERROR, struct.pack("=i", -(2**31))), errno.EBADMSG),
        (message(ERROR, struct.pack("=i", -errno.EPERM)), errno.EPERM),
        (message(diag._SOCK_DIAG_BY_FAMILY, bytes(71)), errno.EBADMSG),
    ],
)
def test_a_damaged_answer_about_two_ends(answer: bytes, number: int) -> None:
    with pytest.raises(OSError) as caught:
        diag._told(answer)
    assert caught.value.errno == number


def test_a_damaged_unix_socket() -> None:
    head = struct.pack("=BBBxI8x", 1, 1, 1, 77)
    attributes = struct.pack("=HH2xxx", 6, 2) + struct.pack("=HHIxx", 10, 3, 5)
    listeners: dict[int, int] = {}
    found = unix_diag._parse(head + attributes, 0, len(head + attributes), listeners)
    assert (found.inode, found.peer, listeners) == (77, 0, {})


@pytest.mark.parametrize(
    ("datagram", "expected"),
    [
        (message(ERROR, struct.pack("=i", 0), length=0), [errno.EBADMSG]),
        (message(ERROR, b""), [errno.EBADMSG]),
        (message(ERROR, struct.pack("=i", -(2**31))), [errno.EBADMSG]),
        (message(ERROR, struct.pack("=i", 0)) + b"x", [0, errno.EBADMSG]),
        (message(ERROR, struct.pack("=i", -17), length=2**32 - 1), [errno.EBADMSG]),
        (message(99, b"anything"), []),
    ],
)
def test_damaged_answers_of_nftables(datagram: bytes, expected: list[int]) -> None:
    assert list(nft_elements.answers(datagram)) == expected


@pytest.mark.parametrize(
    "datagram", [b"", b"x" * 19, message(24, bytes(11)), message(24, bytes(40), length=0)]
)
def test_a_damaged_route(datagram: bytes) -> None:
    assert routing.answer(datagram) == errno.EBADMSG


def test_a_route_with_a_damaged_attribute_is_not_copied() -> None:
    route = struct.pack("=8BI", 2, 32, 0, 0, 254, 2, 0, 1, 0)
    device = struct.pack("=HHI", 8, 4, 7)
    assert same_path._copy(route + device, b"\1\2\3\4", 20)
    for damaged in (b"\0\0" + device[2:], b"\xff\xff" + device[2:], device[:-1]):
        assert same_path._copy(route + damaged, b"\1\2\3\4", 20) == b""


def btf() -> bytes:
    """A struct with two members, and a function."""
    strings = b"\0pair\0one\0two\0act\0"
    types = struct.pack("=3I", 1, 4 << 24 | 2, 16) + struct.pack("=6I", 6, 0, 0, 10, 0, 64)
    types += struct.pack("=3I", 14, 12 << 24, 1)
    return (
        struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings
    )


def test_btf() -> None:
    found = bpf.structs_in(btf(), ["pair"])
    assert found["pair"] == bpf.Struct(1, 16, bpf.Offsets(one=0, two=8))
    with pytest.raises(KernelError, match="other"):
        bpf.structs_in(btf(), ["other"])
    with pytest.raises(KernelError, match="member three"):
        found["pair"].offsets["three"]


def test_damaged_btf() -> None:
    whole = btf()
    for size in range(len(whole) - len(b"act\0")):
        with pytest.raises(KernelError):
            bpf.structs_in(whole[:size], ["pair"])
    for place in range(24, len(whole)):
        try:
            bpf.structs_in(whole[:place] + b"\xff" + whole[place + 1 :], ["pair"])
        except KernelError as error:
            assert error.errno in (errno.ENOENT, errno.EBADMSG)


def nested_btf() -> bytes:
    """An int, a struct of bit fields, a union without a name of it and an int, and a struct with that in it."""
    strings = b"\0u8\0u64\0bits\0low\0high\0whole\0outer\0first\0inner\0again\0"
    at = {name.decode(): strings.index(b"\0" + name + b"\0") + 1 for name in strings.split(b"\0") if name}
    types = struct.pack("=4I", at["u8"], 1 << 24, 1, 8)  # 1
    types += struct.pack("=4I", at["u64"], 1 << 24, 8, 64)  # 2
    types += struct.pack("=3I", at["bits"], 1 << 31 | 4 << 24 | 2, 2)  # 3
    types += struct.pack("=6I", at["low"], 1, 3 << 24, at["high"], 1, 6 << 24 | 3)
    types += struct.pack("=3I", 0, 5 << 24 | 2, 8)  # 4
    types += struct.pack("=6I", 0, 3, 0, at["whole"], 2, 0)
    types += struct.pack("=3I", at["again"], 8 << 24, 4)  # 5
    types += struct.pack("=3I", at["outer"], 4 << 24 | 2, 24)  # 6
    types += struct.pack("=6I", at["first"], 2, 0, at["inner"], 5, 64)
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return header + types + strings


def test_members_within_members() -> None:
    types = btf_.Types(nested_btf(), ["outer", "bits"])
    assert types.extent("outer.first") == (0, 8)
    assert types.extent("outer.inner") == types.extent("outer.inner.whole") == (8, 8)
    assert types.extent("outer.inner.low") == (8, 1)
    assert types.extent("outer.inner.high") == (8, 2), "it touches two bytes"
    for missing in ("outer.none", "none.first", "u64.first", "outer.first.whole", "outer.inner.low.none"):
        with pytest.raises(KernelError, match="No such file"):
            types.extent(missing)


def test_damaged_types() -> None:
    whole = nested_btf()
    damaged = [whole[:size] for size in range(len(whole))]
    damaged += [whole[:place] + b"\xff" + whole[place + 1 :] for place in range(len(whole))]
    for data in damaged:
        try:
            btf_.Types(data, ["outer"]).extent("outer.inner.high")
        except KernelError as error:
            assert error.errno in (errno.ENOENT, errno.EBADMSG)
