"""The command ``migrate-lab``: argv -> one call -> exit status.

0 done, 1 the lab cannot be brought up or down or (status) is not up, 2 usage. ``exec`` and ``shell``
return the command's own status, or die of the signal that ended it, or, with --vm, a shell at a terminal was to
be ended by; 125, 126 and 127 are the lab's, and spawn's: no such lab or log, cannot be executed, not found.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from migrate import standard_streams
from migrate.lab import enter, remedies, topology
from migrate.lab.arguments import parse, wishes
from migrate.lab.ends import cleaning_up, complain, say
from migrate.lab.errors import LabError
from migrate.lab.lab import Host, Lab

#: Verbs that run a command, whose exit status is theirs.
RUNS = ("exec", "spawn", "shell")


def make_lab(options: argparse.Namespace) -> Lab:
    """Return the lab that is meant."""
    if not options.vm:
        return Lab(options.name)
    from migrate.lab.vm.lab import VmLab  # Much that the other lab does not need.

    parts = {"kernels": options.kernel, "cpus": options.cpu, "clocks": options.clock}
    parts["architectures"] = options.arch
    lab = VmLab(options.name, **parts, systemd=options.systemd)
    if os.geteuid() != 0:
        raise LabError("machines need root, also to be looked at")
    return lab


def print_status(lab: Lab, as_json: bool) -> int:
    """Print what is known of *lab*; return 0 if it is up, else 1."""
    status = lab.status()
    rows = {**status["hosts"], "service": status["service"]}
    lines = [f"lab {lab.name!r} is {in_a_word(status)}"]
    for name, row in rows.items():
        lines.append(f"{name:<12} {row['ipv4']:<12} {row['ipv6']:<10} {what_runs(row)}")
    say(json.dumps(status) if as_json else "\n".join(lines))
    return 0 if status["up"] else 1


def in_a_word(status: dict[str, Any]) -> str:
    """Return whether the lab is up; of machines, of which each may be off, which are."""
    machines = {name: row["machine"] for name, row in status["hosts"].items() if "machine" in row}
    off = [name for name, machine in machines.items() if not machine["on"]]
    silent = {name: one for name, one in machines.items() if one["on"] and not one["answers"]}
    if status["up"] or not (off or silent):
        return "up" if status["up"] else "down"
    lab = status["name"]
    said = [f"{', '.join(off)} {'is' if len(off) == 1 else 'are'} off: {remedies.starts(lab)}"] if off else []
    for name, one in silent.items():
        said.append(f"{name} does not answer: {remedies.of_silent(lab, name, stopped=one['stopped'])}")
    return f"up in part: {'; '.join(said)}"


def what_runs(row: dict[str, Any]) -> str:
    """Return what a line of the status ends with: a host's init, or a machine's kernel."""
    if machine := row.get("machine"):
        if not machine["answers"]:
            return "does not answer" if machine["on"] else "off"
        return f"Linux {machine['kernel']}, {machine['accelerator']}"
    return f"init {row['init_pid']}" if row.get("init_pid") else ""


def up(lab: Lab, *, wishes: bool) -> int:
    """Bring *lab* up and print it. *wishes*: there are some about what it is made of."""
    stood = wishes and lab.stands()
    with cleaning_up():
        made = lab.up()
    if not made:
        print(f"lab {lab.name!r} was up already, and is as it was made", file=sys.stderr)
    elif stood:
        print(f"lab {lab.name!r} was up in part, and every machine is as it was made", file=sys.stderr)
    try:
        shown = print_status(lab, as_json=False)
    except LabError as error:
        raise LabError(f"lab {lab.name!r} is up; {error}") from None
    if shown and not lab.stands():
        complain(f"lab {lab.name!r} was taken down meanwhile")
    return shown


def down(lab: Lab) -> int:
    """Bring *lab* down."""
    if not lab.down():
        print(f"lab {lab.name!r} was not up", file=sys.stderr)
    return 0


def power(lab: Lab, host: str, wanted: str) -> int:
    """Switch a machine on or off, and say what it is then."""
    if machine := topology.ALIASES.get(host):
        raise LabError(f"{host} is no machine but an interface of {machine}: say power {machine} {wanted}")
    changed = (lab.power_on if wanted == "on" else lab.power_off)(lab.host(host).node)
    say(f"{host} is {wanted}" if changed else f"{host} was {wanted} already")
    return 0


def inside(lab: Lab, host: str, action: Callable[[Host], int]) -> int:
    """Do *action* with *host*; return its status, or 125."""
    try:
        return action(lab.host(host))
    except (LabError, ProcessLookupError, PermissionError) as error:
        complain(str(error))
        return enter.EXIT_LAB


def dispatch(options: argparse.Namespace, command: list[str]) -> int:
    """Do what was asked for."""
    lab = make_lab(options)
    match options.verb:
        case "up":
            return up(lab, wishes=bool(wishes(options)))
        case "down":
            return down(lab)
        case "status":
            return print_status(lab, options.json)
        case "spawn":
            return inside(lab, options.host, lambda host: host.run_detached(options.log, command))
        case "shell":
            return inside(lab, options.host, lambda host: host.run(["/bin/bash", "-l"], terminal=True))
        case "power":
            return power(lab, options.host, options.state)
        case _:
            return inside(lab, options.host, lambda host: host.run(command))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv* (without the program's name); return the exit status."""
    closed = standard_streams.open_closed()
    options, command = parse(list(sys.argv[1:] if argv is None else argv))
    if options.verb == "spawn" and 1 in closed:
        complain("standard output is closed, so nobody could be told the PID: nothing was started")
        return enter.EXIT_LAB
    try:
        return dispatch(options, command)
    except LabError as error:
        complain(str(error))
        return enter.EXIT_LAB if options.verb in RUNS else 1
    except KeyboardInterrupt:
        complain("interrupted")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1


if __name__ == "__main__":
    sys.exit(main())
