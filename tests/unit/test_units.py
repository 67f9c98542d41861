"""Sizes and durations as people read them: the same number in a refusal and in a report."""

from __future__ import annotations

from migrate.units import duration, size


def test_sizes() -> None:
    counts = (0, 1, 1023, 1024, 5 << 20, 1 << 30, 5000 << 40)
    assert [size(count) for count in counts] == [
        "0 bytes",
        "1 byte",
        "1023 bytes",
        "1.0 KiB",
        "5.0 MiB",
        "1.0 GiB",
        "5000.0 TiB",
    ]


def test_durations() -> None:
    assert [duration(ms) for ms in (0.04, 9999.9, 12_345)] == ["0.0 ms", "9999.9 ms", "12.3 s"]
