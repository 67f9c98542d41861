"""30 seconds of `make fuzz`: all examples that are kept, and changes of them that are others every time.

The seed is printed when something is found; FUZZ_SEED repeats it. For longer: `make fuzz SECONDS=...`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import engine
import pytest

SECONDS = 30


@pytest.mark.timeout(10 * SECONDS)
def test_every_decoder() -> None:
    """In a process of its own: the decoders are kept from programs, the network and files."""
    seed = ["--seed", os.environ["FUZZ_SEED"]] if "FUZZ_SEED" in os.environ else []
    command = [sys.executable, str(engine.HERE / "fuzz.py"), "--seconds", str(SECONDS), *seed]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_target_has_examples() -> None:
    names = {path.name for path in engine.CORPUS.iterdir()}
    listed = subprocess.run(
        [sys.executable, str(engine.HERE / "fuzz.py"), "--list"], capture_output=True, text=True, check=True
    )
    assert set(listed.stdout.split()) == names
    assert all(any(Path(engine.CORPUS / name).iterdir()) for name in names)
    size = sum(path.stat().st_size for path in engine.CORPUS.rglob("*") if path.is_file())
    assert size < 200_000


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("int(data.decode('latin-1'))", "ValueError"),
        ("any(one for one in iter(int, 1))", "no end"),
        ("bytearray(300 << 20)", "kB of memory"),
        ("subprocess.run(['true'])", "Forbidden"),
        ("open('/tmp/never', 'w')", "Forbidden"),
        ("os.mkdir('/tmp/never')", "Forbidden"),
        ("socket.getaddrinfo('localhost', 1)", "Forbidden"),
    ],
)
def test_a_fault_is_found(code: str, told: str, tmp_path: Path) -> None:
    """The engine itself, with decoders that do what none may."""
    program = (
        "import os, socket, subprocess, sys\nfrom pathlib import Path\nfrom random import Random\n"
        f"sys.path.insert(0, {str(engine.HERE)!r})\nimport engine, mutate\n"
        f"engine.CRASHES = engine.ROOT = Path({str(tmp_path)!r})\n"
        f"target = engine.Target('x', lambda data: {code}, (), (mutate.of_bytes,), dict)\n"
        "run = engine.Run(target, Random(1), [b'7'])\nrun.go_on(count=200, seconds=1)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert told in done.stdout, done.stdout + done.stderr
    assert "repeat it with:" in done.stdout
    assert not Path("/tmp/never").exists()
