"""The decoders of `tcpcp`: images, and what the kernel answers."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import sys
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

import mutate
from engine import HERE, Target

sys.path.insert(0, str(HERE.parent / "unit"))
sys.path.insert(0, str(HERE.parent))
import criu_stream
from golden_icis import GOLDEN

from tcpcp import cli
from tcpcp.criu import images
from tcpcp.criu.completion import Completion
from tcpcp.endpoint import restored, same_path
from tcpcp.errors import CodecError, IciError, KernelError
from tcpcp.kernel import bpf, diag, nft_elements, routing
from tcpcp.pb import ici_pb2
from tcpcp.record import checks, codec, sealed, text
from tcpcp.record.ici import Ici, State

KEY = bytes(range(32))
LIMITS = checks.Limits()
CRIU = HERE.parent / "unit" / "golden" / "criu"
NETLINK_WORDS = [struct.pack("=I", number) for number in (0, 1, 15, 16, 17, 20, 36)]
NETLINK_WORDS += [struct.pack("=HH", length, kind) for length in (0, 3, 4, 5, 8, 65535) for kind in range(5)]


# --- ICI images -------------------------------------------------------------------------------------------


def use(ici: Ici) -> None:
    """What is done with an ICI before any call for it."""
    shown = text.as_text(ici)
    assert shown.isascii() and shown.replace("\n", "").isprintable()
    json.dumps(text.as_json(ici))
    assert codec.loads(codec.dumps(ici)) == ici
    if not checks.problems(ici, LIMITS):
        for more in (False, True):
            made = images.tcp_stream(ici, more=restored.bytes_to_teach(ici) if more else 0)
            criu_stream.parse(made, ici.state)


def one_record(data: bytes) -> None:
    """tcpcp.record.codec.loads."""
    use(codec.loads(data))


def many_records(data: bytes) -> None:
    """tcpcp.record.codec.loads_many, whole_records."""
    assert codec.whole_records(data) <= len(data)
    for ici in codec.loads_many(data):
        use(ici)


def sealed_record(data: bytes) -> None:
    """tcpcp.record.sealed.loads_sealed, the tag made right in half of the cases."""
    with contextlib.suppress(CodecError):
        sealed.loads_sealed(data, KEY)
    record = data[len(sealed.MAGIC) + 32 :]
    use(sealed.loads_sealed(sealed.MAGIC + sealed._tag(record, KEY) + record, KEY))


def shown(directory: Path) -> Callable[[bytes], None]:
    """The command `tcpcp show`: never more than an exit status, and plain text."""
    path = directory / "shown"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        for as_json in (False, True):
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                good = cli._show(str(path), as_json=as_json)
            said = out.getvalue() + err.getvalue()
            assert said.isascii() and said.replace("\n", "").isprintable()
            assert good == (not err.getvalue())

    return run


def completion(directory: Path) -> Callable[[bytes], None]:
    """tcpcp.criu.completion: an ICI image that arrives in pieces, beside CRIU's images."""
    where = directory / "completion"
    where.mkdir()

    def run(data: bytes) -> None:
        for name in ("inventory.img", "files.img"):
            (where / name).write_bytes((CRIU / name).read_bytes())
        try:
            made = Completion(where, teach=True)
            for piece in (data[:30], data[30:500], data[500:]):
                made.take(piece)
            made.finish([17801])
        finally:
            for path in where.iterdir():
                path.unlink()

    return run


def resealed(data: bytes, rng: Random) -> bytes:
    """A record whose message is another, with the right length and CRC."""
    change = mutate.message_of(ici_pb2.Ici)
    message = change(data[codec.HEADER.size :], rng)
    version = rng.choice((struct.unpack_from(">H", data.ljust(10, b"\0"), 8)[0],) * 19 + (0,))
    numbers = struct.pack(">HHI", version, 0, len(message))
    return codec.MAGIC + numbers + struct.pack(">I", zlib.crc32(message, zlib.crc32(numbers))) + message


def resealed_one_of(data: bytes, rng: Random) -> bytes:
    """The same with one record of many."""
    starts = [at for at in range(len(data)) if data.startswith(codec.MAGIC, at)][:10] or [0]
    at = rng.choice(starts)
    end = min((one for one in starts if one > at), default=len(data))
    return (data[:at] + resealed(data[at:end], rng) + data[end:])[: mutate.MOST_BYTES]


def _records() -> dict[str, bytes]:
    return {name: codec.dumps(ici) for name, ici in GOLDEN.items()}


# --- CRIU's images ----------------------------------------------------------------------------------------


def files_image(data: bytes) -> None:
    """tcpcp.criu.images.inet_sockets, patch_files."""
    found = list(images.inet_sockets(data))
    assert all(type(one.device) is str and type(one.inode) is int for one in found)
    patched = images.patch_files(data, {found[0].inode: State.CLOSE_WAIT} if found else {}, [1])
    assert len(list(images.inet_sockets(patched))) == len(found)


def inventory_image(data: bytes) -> None:
    """tcpcp.criu.images.patch_inventory."""
    images.patch_inventory(data)


def _image(name: str) -> Callable[[], dict[str, bytes]]:
    return lambda: {name: (CRIU / name).read_bytes()}


# --- the kernel's answers -----------------------------------------------------------------------------------


def tcp_dump(data: bytes) -> None:
    """tcpcp.kernel.diag.tcp: one datagram."""
    for where in diag.sockets(data, diag._MESSAGE.size):
        entry = diag._entry(*where)
        assert type(entry.congestion) is str and type(entry.ulp) is str


def nft_answers(data: bytes) -> None:
    """tcpcp.kernel.nft_elements.answers: numbers that os.strerror() takes, not more than there is room for."""
    found = list(nft_elements.answers(data))
    assert all(0 <= number < 4096 for number in found) and len(found) <= len(data) // 16 + 1


def route_answer(data: bytes) -> None:
    """tcpcp.endpoint.same_path: the answer to what the way to a peer is."""
    answer = routing.answer(data)
    if isinstance(answer, bytes):
        same_path._copy(answer, b"\1\2\3\4", 20)


def kernel_types(data: bytes) -> None:
    """tcpcp.kernel.bpf: BTF."""
    found = bpf.structs_in(data, ["pair", "act"])
    found["pair"].offsets["one"]


def message(kind: int, body: bytes) -> bytes:
    """A netlink message."""
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body + bytes(-len(body) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    """A netlink attribute."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def attributes_changed(head: int) -> mutate.Mutator:
    """Changes one of the attributes in the last message, behind *head* bytes."""

    def mutator(data: bytes, rng: Random) -> bytes:
        at = max(data.rfind(attribute(4, b"cubic\0")), min(head, len(data)))
        kind = rng.choice((1, 2, 4, 5, 8, 11, 18, 19, 0x8000 | 19))
        made = attribute(
            kind, rng.choice((b"", b"\0", b"x", bytes(3), bytes(4), b"cubic\0", attribute(1, b"tls\0")))
        )
        length = struct.pack("=H", rng.choice((0, 1, 3, 4, 5, len(made), 65535)))
        return data[:at] + rng.choice((made, length + made[2:])) + data[at + rng.choice((0, 4, 8)) :]

    return mutator


def sized(data: bytes, rng: Random) -> bytes:
    """A datagram whose first message has a length that fits it, or nearly."""
    return struct.pack("=I", max(0, len(data) + rng.choice((0, 0, 0, -1, 1, -4)))) + data[4:]


def _dumps() -> dict[str, bytes]:
    ends = struct.pack("!2H16s16sI8x", 80, 4000, b"\x0a\x4d\1\x64", b"\x0a\x4d\2\1", 0)
    body = struct.pack("=4B", 2, 1, 0, 0) + ends + struct.pack("=5I", 0, 1, 2, 1000, 577)
    more = attribute(4, b"cubic\0") + attribute(11, b"\1") + attribute(18, bytes(100))
    more += attribute(19 | 0x8000, attribute(1, b"tls\0"))
    one = message(20, body + more)
    return {
        "two": one + one,
        "last": one + message(3, bytes(4)),
        "failed": message(2, struct.pack("=i", -2) + bytes(20)),
    }


def _answers() -> dict[str, bytes]:
    good, bad = (message(2, struct.pack("=iIHHII", number, 20, 0, 0, 1, 0)) for number in (0, -17))
    return {"good": good * 3, "bad": good + bad}


def _routes() -> dict[str, bytes]:
    head = struct.pack("=8BI", 2, 32, 0, 0, 254, 2, 0, 1, 0)
    way = attribute(1, b"\1\2\3\4") + attribute(4, struct.pack("=I", 3)) + attribute(5, b"\x0a\0\0\1")
    return {"way": message(24, head + way), "none": message(2, struct.pack("=i", -101) + bytes(20))}


def _types() -> dict[str, bytes]:
    strings = b"\0pair\0one\0two\0act\0"
    types = struct.pack("=4I", 0, 1 << 24, 4, 32) + struct.pack("=3I", 0, 2 << 24, 1)
    types += struct.pack("=3I", 1, 4 << 24 | 2, 16) + struct.pack("=6I", 6, 0, 0, 10, 0, 64)
    types += (
        struct.pack("=3I", 0, 13 << 24 | 1, 1)
        + struct.pack("=2I", 0, 1)
        + struct.pack("=3I", 14, 12 << 24, 5)
    )
    head = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return {"types": head + types + strings}


def _bytes(words: Iterable[bytes] = ()) -> mutate.Mutator:
    chosen = list(words)
    return lambda data, rng: mutate.of_bytes(data, rng, chosen)


def targets(directory: Path) -> list[Target]:
    """The table; what needs files makes them in *directory*."""
    plain, netlink = _bytes(), _bytes(NETLINK_WORDS)
    image: Any = images.pb
    entries = mutate.framed("<I", mutate.message_of(image.file_entry), 8)
    together = {"all": b"".join(_records().values()), **_records()}

    def sealed_seeds() -> dict[str, bytes]:
        return {name: sealed.dumps_sealed(ici, KEY) for name, ici in GOLDEN.items()}

    def behind_seal(data: bytes, rng: Random) -> bytes:
        start = len(sealed.MAGIC) + 32
        return data[:start] + resealed(data[start:], rng)

    tests = {
        "ici": (one_record, (CodecError,), (plain, resealed, resealed), _records),
        "ici_image": (many_records, (CodecError,), (plain, resealed_one_of), lambda: together),
        "sealed": (sealed_record, (CodecError,), (plain, behind_seal), sealed_seeds),
        "show": (shown(directory), (), (plain, resealed_one_of), lambda: together),
        "completion": (
            completion(directory),
            (CodecError, IciError),
            (plain, resealed_one_of),
            lambda: together,
        ),
        "criu_files": (files_image, (CodecError,), (plain, entries, entries), _image("files.img")),
        "criu_inventory": (
            inventory_image,
            (CodecError,),
            (plain, mutate.framed("<I", mutate.message_of(image.inventory_entry), 4)),
            _image("inventory.img"),
        ),
        "tcp_dump": (tcp_dump, (OSError,), (netlink, sized, attributes_changed(88)), _dumps),
        "nft_answers": (nft_answers, (), (netlink, sized), _answers),
        "route_answer": (route_answer, (), (netlink, sized, attributes_changed(28)), _routes),
        "kernel_types": (kernel_types, (KernelError,), (netlink,), _types),
    }
    return [Target(name, *rest) for name, rest in tests.items()]
