"""One run: a migration, the blows of its plan, its end; what was seen is kept for the judge."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from subprocess import PIPE, STDOUT
from typing import Any

import hosts
from beats import Beats
from faults import FAULTS
from plan import HELD, Blow, Plan
from world import SIDES, NoVictim, World

#: The driver is given so long: --timeout for a step after COMMIT, 15 s to ask, and what slow machines take.
OPTIONS = ("--json", "--timeout", "20")
DRIVER_S = 150.0
#: How long both sides have to notice what is broken for ever: limits.SILENCE_S, and their undo.
NOTICE_S = 8.0


class Trial:
    """What one run did and what was seen.

    :ivar status, report: of the driver; report is None if it said none. ``reported_at`` is when.
    :ivar fired: blow -> when it was done; those that came too late or found nobody are in ``missed``.
    :ivar ids: migrations that had a journal on either host.
    :ivar journal_states: the last state of the origin's journal that was seen, by id.
    """

    def __init__(self, world: World, plan: Plan) -> None:
        self.world, self.plan = world, plan
        self.status: int | None = None
        self.report: dict[str, Any] | None = None
        self.reported_at = 0.0
        self.fired: dict[Blow, float] = {}
        self.missed: dict[Blow, str] = {}
        self.ids: set[str] = set()
        self.output: list[str] = []
        self._phases: dict[str, float] = {}
        self._changed = threading.Condition()
        self._over = False
        self._undos: list[Callable[[], None]] = []
        self.phase = ""

    def run(self) -> None:
        """Do it all; the lab is healed afterwards, as far as it was broken by us."""
        world = self.world
        world.begin()
        if self.plan.keeper:
            world.run("origin", "mount -o remount,bind,ro /sys/fs/cgroup")
        self.beats = Beats(world)
        world.bench.ask()  # silences are counted from here
        self._drive()
        for side in SIDES:
            self.note_ids(side)
        if any(self.world.host("origin").exec(["nft", "list", "tables"]).stdout.count(w) for w in ("cut",)):
            time.sleep(NOTICE_S)
        for undo in self._undos:
            undo()
        world.wait_for_callers()
        world.run("origin", "mount -o remount,bind,rw /sys/fs/cgroup")
        for side in SIDES:
            (world.host(side).root / "tmp/beats/do").unlink(missing_ok=True)
        world.note("healed")

    def note_ids(self, side: str) -> None:
        """Remember the migrations that *side* knows of."""
        with contextlib.suppress(OSError):
            for one in (self.world.host(side).root / "run/migrate").iterdir():
                if (one / "journal").exists():
                    self.ids.add(one.name)

    def _drive(self) -> None:
        world, plan = self.world, self.plan
        words = ["migrate", *OPTIONS, *(["--stop-at", plan.stop_at] if plan.stop_at else [])]
        words += [str(world.bench.pid), "destination"]
        world.note(" ".join(words))
        self.process = world.bench.origin.popen(words, stdout=PIPE, stderr=STDOUT, text=True)
        reader = threading.Thread(target=self._read, daemon=True)
        blows = [threading.Thread(target=self._strike, args=(blow,), daemon=True) for blow in plan.blows]
        for thread in (reader, *blows):
            thread.start()
        try:
            self.status = self.process.wait(timeout=DRIVER_S)
        except Exception:
            world.note("the driver does not end")
            for one in hosts.find(world.bench.origin, "driver"):
                hosts.send(one, hosts.signal.SIGKILL)
        reader.join(10)
        with self._changed:
            self._over = True
            self._changed.notify_all()
        for thread in blows:
            thread.join(30)
        world.note(f"the driver has ended: {self.status}")

    def _read(self) -> None:
        for line in self.process.stdout:
            self.output.append(line.rstrip())
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._event(json.loads(line))

    def _event(self, event: dict[str, Any]) -> None:
        name = ""
        if event["event"] == "phase" and event["state"] == "begin":
            name = event["name"]
        elif event["event"] == "note" and event["text"].startswith("stopped at "):
            name = HELD
            threading.Timer(self.plan.go_ms / 1000, self._go).start()
        elif event["event"] == "report":
            self.report, self.reported_at = event, time.monotonic()
        if name:
            self.world.note(f"phase {name}")
            with self._changed:
                self.phase = name
                self._phases.setdefault(name, time.monotonic())
                self._changed.notify_all()

    def _go(self) -> None:
        self.note_ids("origin")
        for one in self.ids:
            with contextlib.suppress(OSError):
                (self.world.host("origin").root / "run/migrate" / one / "go").touch()

    def _strike(self, blow: Blow) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._over or blow.when.phase in self._phases)
            began = self._phases.get(blow.when.phase)
        if began is None:
            self.missed[blow] = "its moment did not come"
            return
        time.sleep(max(0.0, began + blow.when.after_ms / 1000 - time.monotonic()))
        self.fired[blow] = time.monotonic()
        self.world.note(
            f"{blow.fault} {blow.how} (the driver is in {self.phase}{', over' if self._over else ''})"
        )
        try:
            undo = FAULTS[blow.fault].do(self.world, blow.how)
            if undo is not None:
                self._undos.append(undo)
        except (NoVictim, ProcessLookupError) as error:
            self.missed[blow] = f"nobody there: {error}"
            del self.fired[blow]
        self.world.note(f"{blow.fault} {blow.how} done")

    # --- for the judge ------------------------------------------------------------------------------------

    def looked_last_at(self) -> float:
        """When the driver had its last look, or soon after: it ends its last phase, and may write late."""
        took_ms = (self.report or {}).get("phases_ms", {}).get("origin", {}).get("release")
        ended = (
            self._phases["release"] + took_ms / 1000
            if took_ms and "release" in self._phases
            else self.reported_at
        )
        return min(ended, self.reported_at)

    def hit(self, fault: str, how: str = "") -> bool:
        """Whether *fault* was done, with *how* at the beginning of its words."""
        return any(blow.fault == fault and blow.how.startswith(how) for blow in self.fired)

    @property
    def may_have_died(self) -> bool:
        """Whether the process itself was hit by what it may end of, or CRIU while it executes code in it."""
        return any(FAULTS[blow.fault].deadly for blow in self.fired) or self.hit("kill", "criu origin")
