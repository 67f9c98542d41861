"""Changes to valid examples: of bytes, lines and words, JSON values, and fields of protobuf messages.

What finds faults is not the number of random bytes but a wrong value where a right one belongs: so the parts
of a format are changed in their own terms, and frames, lengths and checksums are made right again.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Mutator = Callable[[bytes, Random], bytes]

NUMBERS = (0, 1, 2, 3, 4, 7, 8, 15, 16, 20, 127, 128, 255, 256, 4095, 4096, 65535, 65536, 1 << 24)
NUMBERS += ((1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
TEXTS = (
    "",
    "\0",
    "/",
    "..",
    "a" * 300,
    "\x1b[2J",
    "\u00e9",
    "\u0663",
    "\u2028",
    "\ud7ff",
    "-1",
    "0",
    "1e400",
    "nan",
)
TEXTS += (
    "%",
    "%eth0",
    "[",
    "]",
    "*",
    "\n",
    "\r",
    "\x0b",
    "0x10",
    "9" * 5000,
    "::",
    "fe80::1%1",
    "10.0.0.1/33",
    "/24",
)
MOST_BYTES = 1 << 16


def of_bytes(data: bytes, rng: Random, words: Sequence[bytes] = ()) -> bytes:
    """One change: a bit, a byte, a number at its edge, a cut, a piece doubled, moved or filled, a word."""
    result = bytearray(data)
    at = rng.randrange(len(result) + 1)
    kind = rng.randrange(9)
    if kind == 0 and at < len(result):
        result[at] ^= 1 << rng.randrange(8)
    elif kind == 1 and at < len(result):
        result[at] = rng.choice((0, 1, 4, 9, 10, 13, 32, 47, 58, 127, 128, 255, rng.randrange(256)))
    elif kind == 2:
        size = rng.choice((1, 2, 2, 4, 4, 8))
        number = rng.choice(NUMBERS) + rng.choice((-1, 0, 0, 1))
        result[at : at + size] = (number % (1 << 8 * size)).to_bytes(size, rng.choice(("little", "big")))
    elif kind == 3:
        del result[at : at + rng.choice((1, 1, 2, 4, 16, 256, MOST_BYTES))]
    elif kind == 4:
        result[at:at] = result[at : at + rng.choice((1, 4, 16, 64, 1024))]
    elif kind == 5:
        other = rng.randrange(len(result) + 1)
        result[other:other] = result[at : at + rng.choice((1, 4, 16, 64))]
    elif kind == 6 and words:
        word = rng.choice(words)
        result[at : at + rng.choice((0, len(word)))] = word
    elif kind == 7:
        result[at : at + 8] = rng.choice((b"\xff" * 9 + b"\x01", b"\x80" * 5, b"\0" * 8, b"\xff" * 8))
    else:
        many = rng.choice((1, 7, 100, 5000 if rng.random() < 0.05 else 300))
        result[at:at] = bytes([rng.choice((0, 32, 65, 255))]) * many
    return bytes(result[:MOST_BYTES])


def of_text(data: bytes, rng: Random, words: Sequence[bytes] = ()) -> bytes:
    """A line or a word of a text changed, doubled, moved or left out."""
    separator = rng.choice((b"\n", b"\n", b" ", b" ", b":", b","))
    parts = data.split(separator)
    at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
    kind = rng.randrange(6)
    if kind == 0:
        parts[at] = rng.choice(
            [*words, *(text.encode() for text in TEXTS), str(rng.choice(NUMBERS)).encode()]
        )
    elif kind == 1:
        parts.insert(at, parts[other])
    elif kind == 2:
        parts[at], parts[other] = parts[other], parts[at]
    elif kind == 3:
        del parts[at]
    elif kind == 4:
        parts[at] = of_bytes(parts[at], rng, words)
    else:
        separator = rng.choice((b"\r", b"\x0b", b"\x0c", b"\x85", b"\xe2\x80\xa8", b"\t", b"\0", b"="))
    return separator.join(parts)[:MOST_BYTES]


def of_json_lines(data: bytes, rng: Random) -> bytes:
    """A value in a line of JSON changed."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    try:
        lines[at] = json.dumps(_json(json.loads(lines[at]), rng)).encode()
    except (ValueError, RecursionError):
        lines[at] = of_bytes(lines[at], rng)
    return b"\n".join(lines)[:MOST_BYTES]


def _json(value: Any, rng: Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        if rng.random() < 0.15:
            return {name: one for name, one in value.items() if name != key}
        return value | {rng.choice((key, key, key, rng.choice(TEXTS))): _json(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        return [*value[:at], _json(value[at], rng), *value[at + rng.randrange(2) :]]
    choices: tuple[Any, ...] = (
        None,
        True,
        False,
        {},
        [],
        [[]],
        1.5,
        -1,
        rng.choice(NUMBERS),
        rng.choice(TEXTS),
    )
    return rng.choice((*choices, [value], value))


def of_message(message: Any, rng: Random) -> None:
    """Change one field of a protobuf message, in place, at any depth."""
    field = rng.choice(message.DESCRIPTOR.fields)
    if rng.random() < 0.1:
        message.ClearField(field.name)
    elif field.message_type is not None and field.message_type.GetOptions().map_entry:
        _of_map(getattr(message, field.name), field.message_type, rng)
    elif field.is_repeated:
        _of_list(getattr(message, field.name), field, rng)
    elif field.message_type is not None:
        inner = getattr(message, field.name)
        inner.SetInParent()
        of_message(inner, rng)
    else:
        setattr(message, field.name, _value(field, getattr(message, field.name), rng))


def _of_list(values: Any, field: Any, rng: Random) -> None:
    if len(values) and rng.random() < 0.3:
        del values[rng.randrange(len(values))]
    elif field.message_type is not None:
        of_message(rng.choice(values) if len(values) and rng.random() < 0.7 else values.add(), rng)
    elif len(values) and rng.random() < 0.6:
        at = rng.randrange(len(values))
        values[at] = _value(field, values[at], rng)
    else:
        values.append(_value(field, None, rng))


def _of_map(values: Any, entry: Any, rng: Random) -> None:
    key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
    if value.message_type is None:
        values[_value(key, rng.choice([*values] or [None]), rng)] = _value(value, None, rng)


def _value(field: Any, old: Any, rng: Random) -> Any:
    kind = field.cpp_type
    if kind == field.CPPTYPE_STRING:
        if field.type == field.TYPE_BYTES:
            return (
                of_bytes(old or b"", rng) if rng.random() < 0.5 else bytes(rng.choice((0, 4, 16, 17, 5000)))
            )
        return rng.choice((*TEXTS, f"{old or ''}{rng.choice(TEXTS)}", (old or "")[:-1]))
    if kind == field.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind == field.CPPTYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    if kind in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
        return rng.choice((0.0, -1.0, float("inf"), float("nan")))
    bits = 64 if kind in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64) else 32
    signed = kind in (field.CPPTYPE_INT64, field.CPPTYPE_INT32)
    number = (rng.choice((*NUMBERS, old or 0)) + rng.choice((-1, 0, 1))) % (1 << bits)
    return number - (1 << bits) if signed and number >> (bits - 1) else number


def framed(format_: str, change: Mutator, start: int = 0) -> Mutator:
    """Changes one of the messages that follow each other from *start* on, each behind its length."""
    length = struct.Struct(format_)

    def mutator(data: bytes, rng: Random) -> bytes:
        parts, offset = [], start
        while offset + length.size <= len(data):
            (size,) = length.unpack_from(data, offset)
            parts.append(data[offset + length.size : offset + length.size + size])
            offset += length.size + size
        if not parts:
            return of_bytes(data, rng)
        at, kind = rng.randrange(len(parts)), rng.randrange(8)
        if kind == 0:
            del parts[at]
        elif kind == 1:
            parts.insert(rng.randrange(len(parts) + 1), parts[at])
        else:
            parts[at] = change(parts[at], rng)
        return (data[:start] + b"".join(length.pack(len(part)) + part for part in parts))[: 1 << 20]

    return mutator


def message_of(make: Callable[[], Any]) -> Mutator:
    """Changes a serialised message in its fields, now and then in its bytes."""

    def mutator(data: bytes, rng: Random) -> bytes:
        message = make()
        try:
            message.ParseFromString(data)
            of_message(message, rng)
            changed: bytes = message.SerializePartialToString()
        except Exception:  # what is no message any more, or a text that protobuf does not take
            return of_bytes(data, rng)
        return of_bytes(changed, rng) if rng.random() < 0.1 else changed

    return mutator
