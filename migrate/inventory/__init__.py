"""What a host can do, and what a process holds: system calls and /proc, no policy.

The judgement, and the words for it, are in :mod:`migrate.checks.reasons`.
"""

from __future__ import annotations

from migrate.inventory.answers import add_sharers, answer, host
from migrate.inventory.compared import contents
from migrate.inventory.of_process import process

__all__ = ["add_sharers", "answer", "contents", "host", "process"]
