"""A name that CRIU gives a file for the time of a dump: one more for a file whose own name is gone.

It stands beside the name that is gone, and the file has another one as well. It is no file of the process's.
Source: criu/files-reg.c create_link_remap().
"""

from __future__ import annotations

import os
import re

_NAME = re.compile(r"link_remap\.\d+")


def is_one(name: str, status: os.stat_result) -> bool:
    """Whether *name*, without its directory, is such a name of the file that *status* is about."""
    return status.st_nlink > 1 and _NAME.fullmatch(name) is not None
