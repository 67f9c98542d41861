"""One lab of machines for all tests, with an old kernel on the origin and a new one on the destination.

Where machines cannot boot, every test is skipped with the reason: a probe says so within seconds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

#: Emulated, and beside whatever else this machine has to do.
os.environ.setdefault("LAB_PATIENCE", "12")
sys.path.insert(0, str(Path(__file__).parent.parent / "lab"))

import kills
from harness.reset import clean, reset

from migrate.lab.vm import probe
from migrate.lab.vm.lab import VmLab

__all__ = ["clean"]

OLD, NEW = "6.1", "6.12"
HOUR_S = 3600
#: The clock of the destination.
AHEAD_S = 5 * HOUR_S
#: An emulated machine is some twenty times slower.
PATIENT = ("--max-gap", "120", "--timeout", "240")
REDIS = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/"]


@pytest.fixture(scope="session")
def lab() -> Iterator[VmLab]:
    """The machines, up."""
    if why := probe.problem():
        pytest.skip(f"machines cannot boot here: {why}")
    kernels = {"origin": OLD, "destination": NEW}
    with VmLab(f"test-{os.getpid()}", kernels=kernels, clocks={"destination": AHEAD_S}) as lab:
        yield lab


@pytest.fixture(scope="module")
def loaded(lab: VmLab) -> Iterator[kills.Bench]:
    """A server under load, whose migrations meet a power cut."""
    reset(lab)
    bench = kills.Bench(lab)
    yield bench
    bench.close()
