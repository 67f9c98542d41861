"""What is loaded once in a process and takes long; to be done before a connection has to wait for it."""

from __future__ import annotations

from tcpcp.endpoint import congestion, fingerprint


def load() -> None:
    """Load our BPF programs; 0.1 s, nothing at the second call.

    Where the kernel refuses the programs, connections are passed all the same: more slowly at first, and with
    an echo of 0.
    """
    fingerprint.prepare()
    congestion.prepare()
