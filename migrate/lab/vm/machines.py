"""The four machines of one lab: QEMU's processes, in the namespaces of the lab's segment.

The segment's init is PID 1 of their PID namespace and owns their network and their files, so its end is theirs, and
nothing of them is left. What each was started with is written down beside the lab's state, to start it anew.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from migrate.lab import enter
from migrate.lab.errors import LabError
from migrate.lab.state import Init
from migrate.lab.vm import client, network, qemu

#: Within the segment: on a file system in memory that ends with it.
RUN = Path("/run/vm")
FILE = "machines.json"
#: Who panics or switches itself off is noticed at once; this is for one that is slow on a busy host.
READY_DEADLINE_S = {"kvm": 90.0, "tcg": 600.0}
POLL_S = 0.3
START_DEADLINE_S = 30.0
SAID_BYTES = 3000
PANIC = "Kernel panic"


def outside(init: Init, path: Path) -> Path:
    """Return how a path of the segment is called from this machine."""
    return Path(f"/proc/{init.pid}/root", *path.parts[1:])


class Machines:
    """Starts and stops machines. *directory*: the lab's run directory, where they are written down."""

    def __init__(self, directory: Path, init: Init) -> None:
        self.directory, self.init = directory, init

    def load(self) -> dict[str, dict[str, Any]]:
        """Return what is known of each machine: its description."""
        try:
            found: dict[str, dict[str, Any]] = json.loads((self.directory / FILE).read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return found

    def save(self, known: Mapping[str, Any]) -> None:
        """Write that down, all or nothing."""
        new = self.directory / (FILE + ".new")
        new.write_text(json.dumps(known, default=str))
        new.replace(self.directory / FILE)

    def describe(self, machines: Mapping[str, qemu.Machine]) -> None:
        """Write the machines down, all of them off."""
        self.save({name: {"machine": one._asdict()} for name, one in machines.items()})

    def change(self, name: str, **fields: Any) -> None:
        """Give a machine that is off another processor, clock or kernel's words; see :class:`qemu.Machine`."""
        known = self.load()
        known[name]["machine"] |= fields
        self.save(known)

    def is_on(self, name: str) -> bool:
        """Return whether QEMU runs."""
        return self._pid(name) != 0

    def _pid(self, name: str) -> int:
        """QEMU's PID in the segment, 0 if it is off.

        Looked for and not written down: whoever starts it may be killed before that, or the disk be full.
        """
        for path in outside(self.init, Path("/proc")).glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended, or the segment has
                if (path / "cmdline").read_bytes().split(b"\0")[1:3] == [b"-name", name.encode()]:
                    return int(path.name)
        return 0

    def power_on(self, name: str) -> None:
        """Start QEMU for a machine that is off; it boots from its disks as they are."""
        if not self.is_on(name):
            self._spawn(_machine(self.load()[name]["machine"]))

    def power_off(self, name: str) -> None:
        """End QEMU at once: a cut of the power. What the machine's kernel had not written yet is lost."""
        if pid := self._pid(name):
            self._inside("kill", "-9", str(pid))
        deadline = time.monotonic() + START_DEADLINE_S
        while self.is_on(name):
            if time.monotonic() > deadline:
                raise LabError(f"{name}: QEMU does not end")
            time.sleep(POLL_S / 10)

    def wait_ready(self, name: str) -> None:
        """Wait until the machine runs commands. :raises LabError: it does not; with its last words."""
        if not (known := self.load()):
            raise LabError(f"{name} has ended with its lab")
        deadline = time.monotonic() + READY_DEADLINE_S[known[name]["machine"]["accelerator"]]
        address = (network.control_address(name), network.CONTROL_PORT)
        while True:
            words = client.argv("exec", self.init, address, "", ["true"])
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=START_DEADLINE_S * 2,
                check=False,
            )
            if done.returncode == 0:
                return
            if not self.is_on(name):
                raise LabError(f"{name} has switched itself off: {self.last_words(name)}")
            if time.monotonic() > deadline or PANIC in self.last_words(name):
                raise LabError(f"{name} does not come up: {self.last_words(name)}")
            time.sleep(POLL_S)

    def last_words(self, name: str) -> str:
        """Return the end of the machine's console and of QEMU's messages."""
        said = ""
        for file in (RUN / name / "log", RUN / name / "console"):
            try:
                said += outside(self.init, file).read_text(errors="replace")[-SAID_BYTES:]
            except OSError:
                continue
        return said.strip()

    def _spawn(self, machine: qemu.Machine) -> None:
        self._enter("spawn", str(machine.run / "log"), *qemu.arguments(machine, time.time()))

    def _inside(self, *words: str) -> str:
        return self._enter("exec", *words)

    def _enter(self, mode: str, *words: str) -> str:
        start = [
            sys.executable,
            "-I",
            "-S",
            enter.__file__,
            mode,
            str(self.init.pid),
            str(self.init.start_ticks),
        ]
        done = subprocess.run(
            [*start, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_DEADLINE_S,
            check=False,
        )
        if done.returncode:
            raise LabError(f"{words[0]}: {done.stderr.strip()}")
        return done.stdout


def _machine(fields: dict[str, Any]) -> qemu.Machine:
    """The description as it was written down."""
    paths = {name: Path(fields[name]) for name in ("kernel", "first", "run")}
    disks = tuple((Path(path), bool(written)) for path, written in fields["disks"])
    taps = tuple((tap, address) for tap, address in fields["taps"])
    return qemu.Machine(**{**fields, **paths, "disks": disks, "taps": taps})
