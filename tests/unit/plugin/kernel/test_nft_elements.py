"""The batches of set elements, taken apart again by the rules of netlink."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from tcpcp.kernel import nft_elements


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        length, kind = struct.unpack_from("=HH", data)
        assert length >= 4
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3 :]


def messages(batch: bytes) -> Iterator[tuple[int, int, bytes]]:
    while batch:
        length, kind, flags, _, _ = struct.unpack_from("=IHHII", batch)
        yield kind, flags, batch[20:length]
        batch = batch[length:]


def keys_in(body: bytes) -> list[bytes]:
    fields = dict(attributes(body))
    assert fields[1] == b"table\0"
    return [
        value
        for _, element in attributes(fields[3])
        for kind, key in attributes(element)
        if kind == 1
        for _, value in attributes(key)
    ]


@given(
    st.sampled_from((2, 8, 16, 40)).flatmap(lambda n: st.lists(st.binary(min_size=n, max_size=n))),
    st.sampled_from((0, 60)),
)
def test_every_key_is_in_the_batch_once_and_in_order(keys: list[bytes], timeout_s: int) -> None:
    changes = nft_elements.changes("add", "table", {"set": keys, "empty": []}, timeout_s)
    count = len(changes)
    parts = list(messages(nft_elements.batch(changes)))
    assert parts[0][0] == 0x10
    assert parts[-1][0] == 0x11
    assert count == len(parts) - 2 == sum(flags & 4 == 4 for _, flags, _ in parts)
    assert [key for _, _, body in parts[1:-1] for key in keys_in(body)] == keys


def test_no_attribute_is_too_long() -> None:
    keys = [nft_elements.flow_key(bytes(16), i, bytes(16), 1) for i in range(60000)]
    changes = nft_elements.changes("delete", "table", {"set": keys})
    assert len(changes) > 40
    assert sum(len(keys_in(one.body)) for one in changes) == 60000


def test_key_is_padded_field_by_field() -> None:
    key = nft_elements.flow_key(b"\1\2\3\4", 0x50, b"\5\6\7\x08", 0x1234)
    assert key == b"\1\2\3\4\0\x50\0\0\5\6\7\x08\x12\x34\0\0"


def test_answers() -> None:
    one = struct.pack("=IHHIIi", 20, 2, 0, 1, 0, -17)
    other = struct.pack("=IHHIIi", 20, 2, 0, 1, 0, 0)
    assert list(nft_elements.answers(one + other)) == [17, 0]
    assert list(nft_elements.answers(b"")) == []
