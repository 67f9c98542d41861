"""A process that was killed while somebody traces its threads is dead, and its pidfd does not say so."""

from __future__ import annotations

import os
import select
import signal

import pytest
from netns import eventually
from programs import program

from migrate.destination.built import Built
from migrate.errors import CriuError
from migrate.pb.session_pb2 import TaskState
from migrate.processes import identity, ptrace
from tcpcp.criu import tree

THREADS = "threading.Thread(target=signal.pause, daemon=True).start(); ready()"


def test_killed_with_threads_that_nobody_reaps() -> None:
    """As CRIU, which waits for them to take their last steps. Source: kernel/pid.c pidfd_poll()."""
    with program(THREADS) as pid:
        built = Built([TaskState(pid=pid, state="S")], {pid: pid})
        pidfd = os.pidfd_open(pid)
        try:
            for tid in tree.threads(pid):
                ptrace.call(ptrace.SEIZE, tid)
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: identity.state(pid) == "Z", "it is dead")
            assert not select.select([pidfd], [], [], 0.1)[0]
            built.require()  # which asks the pidfd
            with pytest.raises(CriuError, match=f"process {pid} of the tree that was built has ended"):
                built.require_alive()
        finally:
            os.close(pidfd)
            for tid in tree.threads(pid):
                if tid != pid:
                    os.waitpid(tid, ptrace.WALL)
