"""The four machines of one lab: QEMU's processes, in the namespaces of the lab's segment.

The segment's init is PID 1 of their PID namespace and owns their network and their files, so its end is theirs, and
nothing of them is left. What each was started with is written down beside the lab's state, to start it anew.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from migrate.lab import enter, remedies
from migrate.lab.errors import LabError
from migrate.lab.state import Init
from migrate.lab.vm import client, console, qemu

#: Within the segment: on a file system in memory that ends with it.
RUN = Path("/run/vm")
#: What the machines write to their disks: apart from their consoles and all else, and large enough for all of it.
DISKS = RUN / "disks"
FILE = "machines.json"
#: Who panics or switches itself off is noticed at once; this is for one that is slow on a busy host.
READY_DEADLINE_S = {"kvm": 90.0, "tcg": 600.0}
POLL_S = 0.3
START_DEADLINE_S = 30.0
#: Of a machine that is asked whether it answers: longer than it takes to connect, on a busy host.
ANSWER_DEADLINE_S = 60.0


def outside(init: Init, path: Path) -> Path:
    """Return how a path of the segment is called from this machine."""
    return Path(f"/proc/{init.pid}/root", *path.parts[1:])


class Machines:
    """Starts and stops machines. *directory*: the lab's run directory, where they are written down."""

    def __init__(self, directory: Path, init: Init) -> None:
        self.directory, self.init = directory, init

    def load(self) -> dict[str, dict[str, Any]]:
        """Return what is known of each machine: its description. Nothing if that is gone, or damaged."""
        try:
            found: dict[str, dict[str, Any]] = json.loads((self.directory / FILE).read_text())
            for fields in found.values():
                _machine(fields)
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}  # none that save() has written
        return found

    def known(self, name: str) -> dict[str, Any]:
        """Return what is known of one. :raises LabError: nothing is."""
        if self.is_taken_down():
            raise LabError(f"lab {self.lab!r} was taken down meanwhile")
        try:
            return self.load()[name]
        except KeyError:
            what = f"{self.directory / FILE} is not as it was written"
            raise LabError(f"{what}: {remedies.makes_anew(self.lab)}") from None

    @property
    def lab(self) -> str:
        """The lab's name."""
        return self.directory.stem

    def forget(self) -> None:
        """Have whoever asks for them from now on be told that they are taken down: their end takes a while."""
        (self.directory / FILE).unlink(missing_ok=True)

    def is_taken_down(self) -> bool:
        """Return whether their lab is, or is about to be."""
        return not (self.directory / FILE).exists() or not self.init.alive()

    def save(self, known: Mapping[str, Any]) -> None:
        """Write that down, all or nothing."""
        new = self.directory / (FILE + ".new")
        new.write_text(json.dumps(known, default=str))
        new.replace(self.directory / FILE)

    def make_room(self, bytes_each: int, count: int) -> None:
        """Mount the file system in memory of :data:`DISKS`, of which none of *count* disks takes another's part.

        An ext4 whose journal is not taken any more by what it lies on fails as a whole.
        """
        outside(self.init, DISKS).mkdir(parents=True)
        size = f"mode=0700,nosuid,nodev,size={bytes_each * count}"
        self._inside("mount", "-t", "tmpfs", "-o", size, "disks", str(DISKS))

    def describe(
        self, machines: Mapping[str, qemu.Machine], versions: Mapping[str, str] | None = None
    ) -> None:
        """Write the machines down, all of them off. *versions*: as the kernels were asked for, by machine."""
        asked = versions or {}
        self.save({name: one._asdict() | {"version": asked.get(name, "")} for name, one in machines.items()})

    def change(self, name: str, **fields: Any) -> None:
        """Give a machine that is off another processor, clock or kernel's words; see :class:`qemu.Machine`."""
        self.save(self.load() | {name: self.known(name) | fields})

    def is_on(self, name: str) -> bool:
        """Return whether QEMU runs."""
        return self._pid(name) != 0

    def _pid(self, name: str) -> int:
        """QEMU's PID in the segment, 0 if it is off.

        Looked for and not written down: whoever starts it may be killed before that, or the disk be full.
        """
        for path in outside(self.init, Path("/proc")).glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended, or the segment has
                if qemu.is_machine((path / "cmdline").read_bytes(), name):
                    return int(path.name)
        return 0

    def power_on(self, name: str) -> bool:
        """Start QEMU for a machine that is off; it boots from its disks as they are. Return whether it was off."""
        machine = _machine(self.known(name))
        if self.is_on(name):
            return False
        # Of another boot, until QEMU begins it anew.
        outside(self.init, RUN / name / "console").unlink(missing_ok=True)
        self._need_files(name, machine)
        self._spawn(machine)
        return True

    def _need_files(self, name: str, machine: qemu.Machine) -> None:
        """:raises LabError: what is kept and the machine is made of was removed since."""
        for path in (
            machine.kernel,
            machine.image,
            *(path for path, written in machine.disks if not written),
        ):
            if path and not outside(self.init, path).exists():
                raise LabError(f"{path} is gone, of which {name} was made: {remedies.makes_anew(self.lab)}")

    def power_off(self, name: str) -> bool:
        """End QEMU at once: a cut of the power. What the machine's kernel had not written yet is lost.

        :return: whether it was on.
        """
        if not (pid := self._pid(name)):
            return False
        self._inside("kill", "-9", str(pid))
        deadline = time.monotonic() + START_DEADLINE_S
        while self.is_on(name):
            if time.monotonic() > deadline:
                raise LabError(f"{name}: QEMU does not end")
            time.sleep(POLL_S / 10)
        return True

    def wait_ready(self, name: str) -> None:
        """Wait until the machine runs commands. :raises LabError: it does not; with its last words.

        One that ran commands before, and does not any more, is not waited for.
        """
        deadline = time.monotonic() + READY_DEADLINE_S[self.known(name)["accelerator"]]
        while True:
            was_ready = console.is_ready(self._said(name, "console"))
            if not self.silent([name]):
                return
            self.known(name)
            if not self.is_on(name):
                raise LabError(f"{name} has switched itself off{self._ending(name)}")
            if self.has_stopped(name):
                raise LabError(f"{name} does not answer: {self.silence(name)}{self._ending(name)}")
            if time.monotonic() > deadline and not was_ready:
                helps = remedies.boots_anew(self.lab, name)
                raise LabError(f"{name} does not come up: {helps}{self._ending(name)}")
            if was_ready:
                raise LabError(f"{name} runs and does not answer any more: {self.silence(name)}")
            time.sleep(POLL_S)

    def silent(self, names: Sequence[str]) -> list[str]:
        """Return those of *names* that run no command now; all are asked at once."""
        with contextlib.ExitStack() as ended:
            asked = {name: self._ask(name) for name in names}
            for process in asked.values():
                ended.callback(process.wait)
                ended.callback(process.kill)
            deadline = time.monotonic() + ANSWER_DEADLINE_S
            return [name for name, process in asked.items() if not _is_good(process, deadline)]

    def _ask(self, name: str) -> subprocess.Popen[bytes]:
        command, nothing = client.argv("exec", self.init, name, "", ["true"]), subprocess.DEVNULL
        return subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)

    def has_stopped(self, name: str) -> bool:
        """Return whether the machine's kernel has stopped, as its console tells."""
        return console.has_stopped(self._said(name, "console"))

    def silence(self, name: str) -> str:
        """Return why a machine that runs does not answer, as far as can be told, and what helps."""
        return remedies.of_silent(self.lab, name, stopped=self.has_stopped(name))

    def _ending(self, name: str) -> str:
        return console.ending(self._said(name, "log"), self._said(name, "console"))

    def _said(self, name: str, file: str) -> str:
        try:
            return outside(self.init, RUN / name / file).read_text(errors="replace")
        except OSError:
            return ""

    def _spawn(self, machine: qemu.Machine) -> None:
        self._enter("spawn", str(machine.run / "log"), *qemu.arguments(machine, time.time()))

    def _inside(self, *command: str) -> str:
        return self._enter("exec", *command)

    def _enter(self, mode: str, *command: str) -> str:
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
            [*start, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_DEADLINE_S,
            check=False,
        )
        if done.returncode:
            raise LabError(f"{command[0]}: {done.stderr.strip()}")
        return done.stdout


def _is_good(process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Whether it ends well by *deadline*, on the monotonic clock."""
    try:
        return process.wait(max(0.0, deadline - time.monotonic())) == 0
    except subprocess.TimeoutExpired:
        return False


def _machine(fields: dict[str, Any]) -> qemu.Machine:
    """The description as it was written down. :raises KeyError, TypeError, ValueError: it is none."""
    if fields["accelerator"] not in READY_DEADLINE_S or fields["architecture"] not in qemu.ARCHITECTURES:
        raise ValueError(fields)
    paths: dict[str, Path | None] = {name: Path(fields[name]) for name in ("kernel", "first", "run")}
    paths["image"] = Path(image) if (image := fields.get("image")) else None
    disks = tuple((Path(path), bool(written)) for path, written in fields["disks"])
    taps = tuple((tap, address) for tap, address in fields["taps"])
    more = {"disks": disks, "taps": taps, "clock_s": int(fields["clock_s"])}
    kept = {name: fields[name] for name in qemu.Machine._fields if name in fields}
    return qemu.Machine(**{**kept, **paths, **more})
