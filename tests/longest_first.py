"""The order of files for several workers: those that take long begin first.

A file is one worker's. One that takes minutes and begins last runs alone at the end, while the others have nothing
left. pytest-xdist by itself counts tests, and the longest files are not those with the most of them: some wait for
limits of the program. It keeps our order with ``--no-loadscope-reorder``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

#: Seconds that files of so many seconds take on two processors with nothing else to do, roughly: only the order
#: follows from it. What is not here takes a second for each of its tests, or less.
SECONDS = {
    "facts/test_asking.py": 160,
    "facts/test_space.py": 130,
    "facts/test_patience.py": 50,
    "fuzz/test_fuzz.py": 45,
    "lab/test_kills.py": 340,
    "lab/test_cuts.py": 280,
    "lab/test_two_copies.py": 270,
    "lab/test_copied_files.py": 200,
    "lab/test_containers_plugin.py": 200,
    "lab/test_doubt.py": 160,
    "lab/test_by_ssh.py": 155,
    "lab/test_limits.py": 146,
    "lab/test_who.py": 110,
    "lab/test_way_back.py": 109,
    "lab/test_kernels_own.py": 103,
    "lab/test_firewalls.py": 80,
    "lab/test_crowd.py": 76,
    "lab/test_gap.py": 70,
    "lab/test_network_as_it_was.py": 56,
}


def in_order(files: Sequence[Path]) -> list[int]:
    """The numbers of tests, given the file of each, so that the longest file comes first; a file stays together."""
    names = [f"{file.parent.name}/{file.name}" for file in files]
    counts = Counter(names)
    return sorted(range(len(names)), key=lambda number: -SECONDS.get(names[number], counts[names[number]]))
