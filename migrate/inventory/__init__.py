"""What a host can do, and what a process holds: system calls and /proc, no policy.

The judgement, and the words for it, are in :mod:`migrate.checks.reasons`.
"""

from __future__ import annotations

from migrate.inventory.answers import answer, host
from migrate.inventory.compared import contents
from migrate.inventory.of_process import process

__all__ = ["answer", "contents", "host", "process"]
