"""Programs of this directory that a page names: they run as it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_what_passing_costs() -> None:
    """benchmarks/README.md."""
    program = Path(__file__).parent / "bench_passing.py"
    done = subprocess.run([sys.executable, program, "3", "10"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" us (release ") == 3
