"""The kernel goes on behind the numbers that a tree will need, for whoever is started next."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os
from pathlib import Path
from migrate.processes import numbers

Path("/proc/sys/kernel/ns_last_pid").write_text("500")
numbers.pass_over([503, 510, 30000])
child = os.fork()
if not child:
    os._exit(0)
os.waitpid(child, 0)
print(child)
"""


def test_who_is_started_next_gets_none_of_them() -> None:
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", PROGRAM]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "511\n"
