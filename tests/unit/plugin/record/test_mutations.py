"""100,000 mutated images: refused with a typed error, or an ICI that makes sense; no call is made.

With the CRC that was in it, what is not refused means the same as before. Whoever computes a new CRC can describe
another connection, as who wrote the image could: the checks find nothing wrong with it then, and it is
written as it was read.

"No call": an audit hook of the interpreter sees every socket that is made, every ctypes call by name, and
every file opened; and socket.socket is replaced for the duration. The CRC is made right again in half of the
cases, since whoever wants to harm can compute one.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import zlib
from collections.abc import Iterator

import pytest
from golden_icis import GOLDEN

from tcpcp.endpoint import builder
from tcpcp.errors import CodecError, IciError
from tcpcp.kernel import tcp_repair
from tcpcp.record import checks, codec
from tcpcp.record.ici import Ici

IMAGES = 100_000
LIMITS = checks.Limits()
#: What a call to the kernel for a connection would show as.
EVENTS = ("socket.", "fcntl.", "ctypes.", "os.", "open", "subprocess.")

_seen: list[str] = []
_watching = [False]


def _hook(event: str, _: tuple[object, ...]) -> None:
    if _watching[0] and event.startswith(EVENTS) and event != "os.putenv":  # pytest names the running test
        _seen.append(event)


@pytest.fixture
def no_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails when a socket is made, or anything else is asked of the kernel, while the test runs."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a kernel call")

    for name in ("set_int", "set_bytes", "get_int", "get_bytes", "_ioctl"):
        monkeypatch.setattr(tcp_repair, name, refuse)
    monkeypatch.setattr(builder, "begin", refuse)
    monkeypatch.setattr(socket, "socket", refuse)
    sys.addaudithook(_hook)
    _seen.clear()
    _watching[0] = True
    yield
    _watching[0] = False
    assert _seen == []


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to three changes: a bit, an octet, a cut, a piece doubled, a number at its edge."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(result) or 1)
        kind = rng.randrange(6)
        if kind == 0 and result:
            result[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and result:
            result[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        elif kind == 2:
            del result[at : at + rng.randrange(1, 9)]
        elif kind == 3:
            result[at:at] = result[at : at + rng.randrange(1, 9)]
        elif kind == 4:
            result[at : at + 4] = struct.pack("<I", rng.choice((0, 1, 2**31, 2**32 - 1)))
        else:
            result[at:at] = rng.choice((b"\xff" * 9 + b"\x01", b"\x80" * 5, bytes([rng.randrange(256)])))
    return bytes(result)


def sealed_again(data: bytes) -> bytes:
    """A right length and CRC for whatever message is in *data*."""
    message = data[codec.HEADER.size :]
    numbers = struct.pack(">HHI", 3, 0, len(message))
    return codec.MAGIC + numbers + struct.pack(">I", zlib.crc32(numbers + message)) + message


@pytest.mark.usefixtures("no_calls")
def test_a_hundred_thousand_mutated_images() -> None:
    rng = random.Random(20040721)
    originals = [(codec.dumps(ici), ici) for ici in GOLDEN.values()]
    outcomes = {"same": 0, "malformed": 0, "refused": 0, "another": 0}
    for number in range(IMAGES):
        image, ici = originals[number % len(originals)]
        changed = mutated(image, rng)
        outcome = judge(sealed_again(changed) if number % 2 else changed, ici)
        assert number % 2 or outcome in ("same", "malformed")
        outcomes[outcome] += 1
    assert sum(outcomes.values()) == IMAGES
    # All ways out were taken: the mutations were neither too gentle nor too rough.
    assert min(outcomes.values()) > 200, outcomes


def judge(image: bytes, original: Ici) -> str:
    """What became of *image*; any other exception than the two typed ones fails the test."""
    try:
        found = codec.loads(image)
        if found == original:
            return "same"
        checks.check(found, LIMITS)
    except CodecError:
        return "malformed"
    except IciError:
        return "refused"
    # Another connection, as a writer who can compute a CRC is free to describe: it makes sense, and is
    # written as it was read.
    assert codec.loads(codec.dumps(found)) == found
    return "another"
