"""ICIs that are authenticated on their way: a record of :mod:`tcpcp.record.codec` behind an HMAC.

For programs whose channel between the hosts is not authenticated itself (TLS and SSH are). The key comes from
the caller and is known to both sides.

An HMAC proves that somebody with the key wrote the record and that nobody changed it. It does not hide the
bytes in the queues, and it does not prove that the record is new: the same bytes are accepted again. Who can
be replayed to sends a number used once, or a key of the session, with each connection.

Source: RFC 2104; NIST SP 800-107 for the key's length.
"""

from __future__ import annotations

import hashlib
import hmac

from tcpcp.errors import CodecError, WrongArgument
from tcpcp.record import codec
from tcpcp.record.ici import Ici

#: Another one than :data:`tcpcp.record.codec.MAGIC`: neither can be taken for the other.
MAGIC = b"\x89ICIHMAC1\r\n\x1a\n"
#: Below this a key can be guessed.
MIN_KEY_BYTES = 16
_TAG_BYTES = hashlib.sha256().digest_size


def dumps_sealed(ici: Ici, key: bytes) -> bytes:
    """:func:`tcpcp.dumps`, authenticated with *key*.

    :param key: at least 16 bytes, random; e.g. ``secrets.token_bytes(32)``.
    :raises WrongArgument: the key is too short, or not bytes. :raises CodecError: as :func:`tcpcp.dumps`.
    """
    record = codec.dumps(ici)
    return MAGIC + _tag(record, key) + record


def loads_sealed(data: codec.Buffer, key: bytes) -> Ici:
    """The ICI in *data*, from :func:`dumps_sealed` with the same *key*; before that is sure, nothing is parsed.

    :raises WrongArgument: the key is too short, or not bytes.
    :raises CodecError: another key, changed, cut, not sealed, or malformed by one who has the key.
    """
    view = codec.view_of(data)
    start = len(MAGIC) + _TAG_BYTES
    if bytes(view[: len(MAGIC)]) != MAGIC or len(view) < start:
        raise CodecError("offset 0: expected a sealed ICI record")
    if len(view) - start > codec.HEADER.size + codec.MAX_MESSAGE_BYTES:
        raise CodecError(f"offset {start}: {len(view) - start} bytes are more than a record holds")
    if not hmac.compare_digest(_tag(view[start:], key), bytes(view[len(MAGIC) : start])):
        raise CodecError("the record was changed on its way, or sealed with another key")
    return codec.loads(view[start:])


def _tag(record: codec.Buffer, key: bytes) -> bytes:
    if not isinstance(key, (bytes, bytearray)):
        raise WrongArgument(f"a key is bytes, not {type(key).__name__}")
    if len(key) < MIN_KEY_BYTES:
        raise WrongArgument(f"a key of {len(key)} bytes can be guessed; it needs at least {MIN_KEY_BYTES}")
    return hmac.digest(key, MAGIC + bytes(record), hashlib.sha256)
