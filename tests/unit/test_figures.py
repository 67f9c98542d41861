"""The figures of the READMEs are those of the last complete run of the benchmarks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]


def test_the_readmes_have_the_figures_of_the_last_run() -> None:
    done = subprocess.run([sys.executable, HERE / "benchmarks" / "readme.py", "--check"], check=False)
    assert done.returncode == 0, "run benchmarks/readme.py"
