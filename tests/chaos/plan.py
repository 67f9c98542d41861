"""A seed -> what is done to one migration, and when. Pure: the same seed gives the same plan."""

from __future__ import annotations

import random
from dataclasses import dataclass

#: Phases of a driver, as its events name them, and how often each is hit: most in and around the gap.
PHASES = {
    "connect": 1,
    "check": 2,
    "prepare": 3,
    "ahead": 2,
    "freeze": 4,
    "dump": 6,
    "isolate": 4,
    "stream": 3,
    "restore": 8,
    "switch": 6,
    "commit": 5,
    "activate": 8,
    "release": 5,
}
#: States in which a driver can be asked to wait, so that a fault surely finds it there.
STATES = (
    "CHECKED",
    "FROZEN",
    "DUMPED",
    "ISOLATED",
    "STREAMED",
    "RESTORED",
    "SWITCHED",
    "COMMITTED",
    "ACTIVATED",
)
#: ms after a phase has begun.
AFTER_MS = (0, 0, 1, 2, 4, 8, 15, 30, 60, 150, 500, 1500)
HELD = "held"


@dataclass(frozen=True, slots=True)
class Moment:
    """When a fault comes: *after_ms* after *phase* has begun; ``held``: after the driver waits in its state."""

    phase: str
    after_ms: float

    def __str__(self) -> str:
        return f"{self.phase}+{self.after_ms:g}ms"


@dataclass(frozen=True, slots=True)
class Blow:
    """One fault at one moment. *how* is one of the words of the fault's row, or ""."""

    fault: str
    how: str
    when: Moment

    def __str__(self) -> str:
        return f"{self.fault}{' ' + self.how if self.how else ''} @{self.when}"


@dataclass(frozen=True, slots=True)
class Plan:
    """One run.

    :ivar stop_at: the state in which the driver waits for ``go_ms``, or "".
    :ivar keeper: whether the origin has no cgroups, so that a keeper must hold the process.
    """

    seed: int
    blows: tuple[Blow, ...]
    stop_at: str
    go_ms: float
    keeper: bool


def draw(seed: int, faults: dict[str, tuple[float, tuple[str, ...]]]) -> Plan:
    """The plan of *seed*.

    :param faults: name -> weight and the words for how, one of which is drawn.
    """
    chance = random.Random(seed)
    stop_at = chance.choice(STATES) if chance.random() < 0.6 else ""
    names = chance.choices(
        list(faults), [weight for weight, _ in faults.values()], k=chance.choice((1, 1, 2))
    )
    blows = []
    for name in names:
        how = chance.choice(faults[name][1] or ("",))
        held = bool(stop_at) and chance.random() < 0.8
        blows.append(Blow(name, how, _moment(chance, held)))
    return Plan(seed, tuple(blows), stop_at, chance.choice((50, 200, 800, 2000)), chance.random() < 0.25)


def _moment(chance: random.Random, held: bool) -> Moment:
    phase = HELD if held else chance.choices(list(PHASES), list(PHASES.values()))[0]
    return Moment(phase, round(chance.choice(AFTER_MS) * chance.uniform(0.5, 1.5), 1))
