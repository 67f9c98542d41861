"""CRIU's log: its errors, and the one of them that says what went wrong."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from pathlib import Path

LOG_LINES = 12
#: What CRIU is told to call it when it restores.
OF_RESTORE = "restore.log"
#: What it writes when it was not to go on with a tree that it had built, before it ends that.
#: Source: criu/cr-restore.c restore_root_task(), after run_scripts(ACT_POST_RESTORE).
_GIVEN_UP = "Aborting restore due to post-restore script"
#: The two signals that get to a task while CRIU works in it.
STOP_OR_CONT = frozenset({signal.SIGSTOP, signal.SIGCONT})


def errors(log: Path) -> list[str]:
    """The errors of a CRIU log, at most the first ``LOG_LINES``; its end where it has none.

    Not what it says of limits that it may not raise, at every start, and does without.
    """
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return []
    found = [line for line in lines if re.search(r"\bError\b", line) and "rlimit: " not in line]
    return found[:LOG_LINES] or lines[-LOG_LINES:]


def gave_up(log: Path) -> bool:
    """Whether CRIU ended what it had built, since nobody said yes to that."""
    try:
        return _GIVEN_UP in log.read_text(errors="replace")
    except OSError:
        return False


#: Errors of CRIU that only say that there was another one before, which tells the object and the reason, or that
#: something was tried in vain that it does without.
_SAYS_NOTHING = re.compile(
    r"(Restoring|Dumping|Pre-dumping) FAILED|rlimit: |Unable to open fd=|Dump [\w ]+(\(pid: \d+\) |\d+ )?failed"
    r"|(\d+ |Child )?(was )?(exited, status=|killed by )|Unable to detach from|Can't fixup (vdso )?VMA"
)


def sentence(lines: list[str]) -> str:
    """The first error of a log that says something, without its clock, if it has one, and place in CRIU's source.

    Whoever fails writes why, then so does everybody who called it: the later, the less it tells.
    """
    said = [
        re.sub(r"^(\([\d.]+\))?\s*(\d+:\s*)?Error \([^)]*\):\s*", "", line)
        for line in lines
        if "Error" in line
    ]
    return next((line for line in said if not _SAYS_NOTHING.match(line)), (said or [""])[-1])


#: Source: compel/src/lib/infect.c parasite_trap(), criu/parasite-syscall.c sigchld_handler(). In the calls that
#: CRIU makes in a task all signals are blocked that can be, and their code was written into memory just before.
_INTERRUPTED = re.compile(r"\b(?:Unexpected (\d+) task interruption|(\d+) was stopped by (\d+) unexpectedly)")
#: SIGCONT has a traced task stop once more, to tell who traces it. Source: kernel/signal.c ptrace_trap_notify().
_WHICH = {
    str(int(signal.SIGSTOP)): frozenset({signal.SIGSTOP}),
    str(int(signal.SIGTRAP)): frozenset({signal.SIGCONT}),
    None: STOP_OR_CONT,
}


def interrupted(lines: Iterable[str]) -> dict[int, frozenset[signal.Signals]]:
    """The threads that CRIU's dump ended for, as it worked in them: which of two signals each may have been sent,
    if it was one; the log says so of SIGSTOP alone.

    A SIGSTOP is lost with that. SIGCONT has had all of its effect.
    """
    found = (match.groups() for line in lines for match in _INTERRUPTED.finditer(line))
    return {int(trapped or stopped): _WHICH[number] for trapped, stopped, number in found if number in _WHICH}
