"""How many times longer than usual the lab's hosts may take: for machines that are emulated (tests/vm).

A limit of a test says when to give up one that hangs, not how fast anything has to be.
"""

import os

FACTOR = float(os.environ.get("LAB_PATIENCE", "1"))
