"""Whether this host may have answered a SYN with a cookie: then it remembers nothing of that handshake.

Only the client knows of it, whose last segment makes the connection out of nothing. So none of them can be counted,
nor passed, and once the listener is closed that segment draws a reset.

The kernel does so where it is told to always, and where its queue of handshakes is full; it takes a cookie for two
minutes, but when it gave the last one it does not tell (net/ipv4/tcp_input.c tcp_conn_request(); include/net/tcp.h
tcp_synq_no_recent_overflow()). It counts them.
"""

from __future__ import annotations

from pathlib import Path

_SETTING = Path("/proc/sys/net/ipv4/tcp_syncookies")
#: That of this thread's network namespace; /proc/net is that of the process.
_COUNTERS = Path("/proc/thread-self/net/netstat")
_NEVER, _ALWAYS = "0", "2"


def may_be_about() -> bool:
    """In this thread's network namespace; also where that cannot be found out, as without /proc."""
    try:
        setting = _SETTING.read_text().strip()
        return setting == _ALWAYS or (setting != _NEVER and sent(_COUNTERS.read_text()) > 0)
    except OSError:
        return True


def sent(counters: str) -> int:
    """How many have been given since the network namespace was made, by the text of a file netstat in /proc."""
    rows = [line.split() for line in counters.splitlines()]
    for names, values in zip(rows[::2], rows[1::2], strict=False):
        if names[:1] == ["TcpExt:"]:
            return int(dict(zip(names, values, strict=False)).get("SyncookiesSent", "0"))
    return 0
