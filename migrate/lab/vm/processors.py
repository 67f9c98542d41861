"""Whether QEMU has the processors that were asked for: asked of QEMU itself, which boots nothing for it.

Its list has names that its emulation, or the board, does not take.
"""

import json
import subprocess

from migrate.lab.errors import LabError
from migrate.lab.vm import qemu
from migrate.lab.vm.wish import Wish

DEADLINE_S = 30.0
#: Of what QEMU says: some list a hundred features that they miss.
SAID_CHARACTERS = 200
#: Debian's amd64 needs it; QEMU has models that are older. Source: AMD64 Architecture Programmer's Manual 3, CPUID.
LONG_MODE = '"lm": true'


def check(wish: Wish, accelerator: str) -> None:
    """See that each host can have its processor. *accelerator*: of machines of this one's architecture.

    :raises LabError: one cannot; with what QEMU says, and what lists those that there are.
    """
    for host, cpu in wish.cpus.items():
        architecture = wish.architectures.get(host, qemu.OWN)
        if why := problem(cpu, architecture, accelerator if architecture == qemu.OWN else "tcg"):
            lists = f"`{qemu.ARCHITECTURES[architecture].program} -cpu help` lists what there is"
            raise LabError(f"{host} cannot have the processor {cpu!r}: {why}; {lists}")


def problem(cpu: str, architecture: str, accelerator: str) -> str:
    """Return why QEMU makes no machine with *cpu* that boots; "" if it does."""
    if cpu in ("help", "?") or "," in cpu:  # Of which QEMU would make something else.
        return "that is no name of a model"
    asked: list[dict[str, object]] = [{"execute": "qmp_capabilities"}]
    if architecture == qemu.OWN:
        model = {"type": "full", "model": {"name": cpu}}
        asked.append({"execute": "query-cpu-model-expansion", "arguments": model})
    asked.append({"execute": "quit"})
    done = subprocess.run(
        qemu.trial(cpu, architecture, accelerator),
        input="".join(map(json.dumps, asked)),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    if done.returncode:
        return done.stderr.strip().rpartition("\n")[2].partition(": ")[2][:SAID_CHARACTERS]
    if architecture == qemu.OWN and LONG_MODE not in done.stdout:
        return "it has no 64-bit mode"
    return ""
