"""What the programs of a migration load when they start. Each takes longer to load than it would take to say why.

A driver, an agent and two guardians start for each migration; what only the lab, another package's way or a person
needs is no part of that.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAMS = {
    "driver": "migrate.cli, migrate.origin.run",
    "agent": "migrate.destination.agent, migrate.destination.destination",
    "guardian": "migrate.recovery.guardian",
}
NOT_NEEDED = {"pyroute2", "asyncio", "rich", "importlib.metadata", "unittest", "migrate.lab"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_is_loaded_for_nobody_is_not_loaded(program: str) -> None:
    code = f"import sys, {PROGRAMS[program]}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded >= set(PROGRAMS[program].split(", "))
    assert loaded & NOT_NEEDED == set()


@pytest.mark.parametrize("program", ["agent", "guardian"])
def test_who_speaks_no_ssh_does_not_load_it(program: str) -> None:
    code = f"import sys, {PROGRAMS[program]}; print('paramiko' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
