"""A host's addresses and routes as its own ``ip`` shows them, to be compared with those of another moment."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

#: Lifetimes are what they were if they end within so many seconds of each other.
_TOLERANCE_S = 5


class Network:
    """Of both families and all tables; link-local ones are left out, which come when they have been tried out.

    :param ip: runs ``ip`` with such arguments on the host, and returns what it prints.
    :ivar lines: sorted, without numbers that the kernel counts down. :ivar ends: when these are 0; monotonic, s.
    """

    def __init__(self, ip: Callable[[str], str]) -> None:
        moment = time.monotonic()
        shown = "".join(map(ip, ("-d address", "-d route show table all", "-d -6 route show table all")))
        lines = (re.sub(r"\b[1-9]\d*sec", "a while", line).strip() for line in shown.splitlines())
        self.lines = sorted(line for line in lines if "fe80:" not in line)
        self.ends = sorted(moment + int(left) for left in re.findall(r"\b([1-9]\d*)sec", shown))

    def changes(self, before: Network) -> list[str]:
        """What is not as it was *before*."""
        gone = [f"gone: {line}" for line in before.lines if line not in self.lines]
        new = [f"new: {line}" for line in self.lines if line not in before.lines]
        pairs = zip(self.ends, before.ends, strict=False)
        others = [f"ends {now - then:+.1f} s" for now, then in pairs if abs(now - then) > _TOLERANCE_S]
        return [*gone, *new, *others]
