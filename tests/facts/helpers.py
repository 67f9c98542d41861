"""A helper that runs in a test's namespace, and programs of users without privileges that ask it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from netns import Namespace, eventually

PLUGIN = Path(__file__).resolve().parents[2] / "plugin"
NOBODY = 65534
#: What the unit leaves to the helper (plugin/systemd/tcpcp-helper.service), and no more.
CAPABILITIES = "-all,+net_admin,+net_raw,+bpf,+perfmon"
#: Named to no helper.
STRANGER = 54321

#: What every program of a user begins with; its arguments are the user, the helper's path and numbers, of
#: descriptors first. It becomes the user when all is imported: he may not be able to read where Python is.
PRELUDE = """
import os, socket, struct, sys
import tcpcp
from tcpcp import helper
user, path, numbers = int(sys.argv[1]), sys.argv[2], [int(one) for one in sys.argv[3:]]
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
def say(*words):
    print(*words, flush=True)
"""


class Helper:
    """A running helper, in *namespace*.

    :param descriptors: how many it may have, SOFT:HARD; "": as many as the test.
    :param program: what Python runs.
    :ivar path: of its socket.
    """

    def __init__(
        self,
        namespace: Namespace,
        *options: str,
        capabilities: str = CAPABILITIES,
        descriptors: str = "",
        program: Sequence[str] = ("-m", "tcpcp.helper"),
    ) -> None:
        self.directory = tempfile.mkdtemp(prefix="tcpcp-helper-")
        Path(self.directory).chmod(0o755)
        self.path, self.namespace = f"{self.directory}/sock", namespace
        limit = ["prlimit", f"--nofile={descriptors}"] if descriptors else []
        command = [*limit, "setpriv", f"--bounding-set={capabilities}", "--inh-caps=-all", "--no-new-privs"]
        command += [sys.executable, *program, "--socket", self.path, "--mode", "666", *options]
        with namespace.entered(), Path(self.directory, "log").open("w") as log:
            self.process = subprocess.Popen(command, env=environment(), stderr=log)
        eventually(self._listens, "the helper listens", 20)
        assert self.process.poll() is None, self.log()

    def _listens(self) -> bool:
        path = Path(self.path)
        return self.process.poll() is not None or (path.exists() and path.stat().st_mode & 0o777 == 0o666)

    def log(self) -> str:
        """What it has said."""
        return Path(self.directory, "log").read_text()

    def workers(self) -> list[int]:
        """Its workers' process ids."""
        pid = self.process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def close(self) -> None:
        """End it as systemd would at last."""
        left = self.workers() if self.process.poll() is None else []
        for pid in [self.process.pid, *left]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.directory)


def environment() -> dict[str, str]:
    """Where `tcpcp` is found."""
    return {"PYTHONPATH": os.environ.get("PYTHONPATH", str(PLUGIN)), "PATH": os.environ["PATH"]}


@contextlib.contextmanager
def user_program(
    helper: Helper,
    code: str,
    descriptors: Sequence[int] = (),
    *,
    uid: int = NOBODY,
    words: Sequence[str] = (),
) -> Iterator[subprocess.Popen[str]]:
    """*code* in a process of user *uid*, in the helper's namespace; what it says can be read, and it be told."""
    command = [sys.executable, "-c", PRELUDE + code, str(uid), helper.path, *map(str, descriptors), *words]
    with helper.namespace.entered():
        process = subprocess.Popen(
            command,
            env=environment(),
            pass_fds=descriptors,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    """The next line that it says."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def tell(process: subprocess.Popen[str], text: str = "") -> None:
    """One line for it to read."""
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()
