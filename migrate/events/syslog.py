"""One line to the system's log, be it syslogd's or journald's, without waiting for it.

Python's own :mod:`syslog`, and its handler in :mod:`logging`, wait while the other end is busy. Source: RFC 3164;
man syslog(3), unix(7).
"""

from __future__ import annotations

import enum
import os
import socket
import time

from migrate import place

_FACILITY_DAEMON = 3 << 3
_MOST_BYTES = 1000


class Severity(enum.IntEnum):
    """As of syslog(3)."""

    ERROR = 3
    WARNING = 4
    INFO = 6


def say(text: str, severity: Severity, name: str) -> bool:
    """Write *text* as the program *name*; whether somebody has taken it. Never waits, never raises."""
    clean = "".join(one if one.isprintable() else "?" for one in text)
    stamp = time.strftime("%b %e %H:%M:%S")
    line = f"<{_FACILITY_DAEMON | severity}>{stamp} {name}[{os.getpid()}]: {clean}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.setblocking(False)
            out.sendto(line.encode(errors="replace")[:_MOST_BYTES], str(place.SYSLOG))
    except OSError:
        return False
    return True
