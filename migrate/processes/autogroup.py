"""The nice value of a session as a whole: its processes are one to the scheduler, which CRIU knows nothing of.

setsid(2) makes a group for who calls it, and for all that he starts. So a process that was built has one of its own
if the leader of its session has been built, too; else it is in that of our agent, which nobody may change for it.

Source: man sched(7), "The autogroup feature"; kernel/sched/autogroup.c.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

_GROUP = re.compile(r"/autogroup-(\d+) nice (-?\d+)\s*")


def nice(pid: int) -> int:
    """That of the session of *pid*; 0, the usual one, where there is none.

    :raises FileNotFoundError, ProcessLookupError: the process has ended.
    """
    found = _read(pid)
    return found[1] if found else 0


def put_back(pid: int, wanted: int, tree: Collection[int]) -> Iterator[str]:
    """Give *wanted* to the session of *pid*, if that is in the *tree* that was built; sentences: what is different.

    :raises FileNotFoundError, ProcessLookupError: the process has ended.
    """
    found = _read(pid)
    if (found[1] if found else 0) == wanted:
        return
    what = f"the nice value of its session as a whole (autogroup) is {found[1] if found else 0}, not {wanted}"
    if found is None:
        yield f"{what}: there are none on this host"
    elif (leader := os.getsid(pid)) not in tree or _read(leader) != found:
        yield f"{what}: its session is not its own here"
    else:
        try:
            Path(f"/proc/{pid}/autogroup").write_text(str(wanted))
        except OSError as error:
            yield f"{what}: {error.strerror}"


def _read(pid: int) -> tuple[int, int] | None:
    """The number of the group and its nice value; None where the kernel has none (CONFIG_SCHED_AUTOGROUP)."""
    try:
        content = Path(f"/proc/{pid}/autogroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        if not Path(f"/proc/{pid}").exists():
            raise
        return None
    except OSError:
        return None
    match = _GROUP.fullmatch(content)
    return (int(match[1]), int(match[2])) if match else None
