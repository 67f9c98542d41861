"""How long a paced segment may be waited for."""

from __future__ import annotations

import pytest

from tcpcp.endpoint.unsent import longest_pause_s


@pytest.mark.parametrize(
    ("rate_bytes_s", "min_rtt_us", "at_most_s"),
    [
        (2_000_000, 30, 0.0328),
        (20_000_000, 30, 0.0033),
        (20_000_000, 600, 0.0027),
        (2_000_000, 20_000, 0.001),
        (10**10, 30, 6.55e-6),
        (0, 0, 65536),
    ],
)
def test_longest_pause(rate_bytes_s: int, min_rtt_us: int, at_most_s: float) -> None:
    """A millisecond's worth far away, as many bytes as a segment may have on a short way; never more than those."""
    assert longest_pause_s(rate_bytes_s, min_rtt_us) == pytest.approx(at_most_s, rel=0.05)
