"""How many times longer than usual the lab's hosts may take: for machines that are emulated (tests/vm).

A limit of a test says when to give up one that hangs, not how fast anything has to be.
"""

import os

FACTOR = float(os.environ.get("LAB_PATIENCE", "1"))
#: Put before a passer's command.
PASSER = [] if FACTOR == 1 else ["env", f"PASSER_DEADLINE_S={20 * FACTOR:g}"]
#: Put before a numbered stream's command: what it carries, slower by so much.
NUMBERED = [] if FACTOR == 1 else ["env", f"NUMBERED_INTERVAL_S={0.004 * FACTOR:g}"]
