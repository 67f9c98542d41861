"""What the programs of a migration load when they start. Each takes longer to load than it would take to say why.

A driver, an agent and two guardians start for each migration; what only the lab, another package's way or a person
needs is no part of that.
"""

from __future__ import annotations

import signal
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


def test_ctrl_c_while_it_is_loaded() -> None:
    """In one line, and with the status of what was not touched."""
    code = (
        "import os, signal, sys; from migrate import start\n"
        "class Slow:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'migrate.cli': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Slow()); sys.argv = ['migrate', '1', 'host']; sys.exit(start.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "migrate: stopped by SIGINT: nothing was touched\n"


def test_who_is_told_to_ignore_ctrl_c_does() -> None:
    code = "import signal, sys; from migrate import start; sys.argv = ['migrate', '--version']\n"
    code += "try: start.main()\nexcept SystemExit: print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    ignores = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=ignores)
    assert done.stdout.split()[-1] == "True"
