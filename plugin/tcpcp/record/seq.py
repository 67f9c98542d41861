"""Arithmetic of TCP sequence numbers and timestamps, mod 2**32 (RFC 9293 section 3.4, RFC 7323 section 5.2)."""

MODULUS = 1 << 32
MASK = MODULUS - 1


def add(seq: int, octets: int) -> int:
    """The sequence number *octets* after *seq*; a negative count goes back."""
    return (seq + octets) & MASK


def diff(later: int, earlier: int) -> int:
    """The signed distance from *earlier* to *later*, in [-2**31, 2**31)."""
    distance = (later - earlier) & MASK
    return distance - MODULUS if distance >= MODULUS >> 1 else distance


def before(first: int, second: int) -> bool:
    """Whether *first* comes strictly before *second*; as the kernel's before()."""
    return diff(first, second) < 0
