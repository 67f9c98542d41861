"""The command ``migrate-lab``: argv -> one call -> exit status.

0 done, 1 the lab cannot be brought up or down or (status) is not up, 2 usage. ``exec`` and ``shell``
return the command's own status; 125, 126 and 127 are the lab's: no such lab, cannot be executed, not found.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from migrate import standard_streams
from migrate.lab import enter
from migrate.lab.errors import LabError
from migrate.lab.lab import Host, Lab

USAGE = """migrate-lab [--vm] [--name NAME] up | down | status [--json]
       migrate-lab [--vm] [--name NAME] exec HOST -- CMD [ARG ...]
       migrate-lab [--vm] [--name NAME] spawn HOST [--log FILE] -- CMD [ARG ...]
       migrate-lab [--vm] [--name NAME] shell HOST
       migrate-lab --vm [--name NAME] [--kernel HOST=VERSION,...] [--cpu HOST=MODEL,...]
                   [--clock HOST=SECONDS,...] [--arch HOST=ARCHITECTURE,...] [--systemd] up
       migrate-lab --vm [--name NAME] power HOST on | off"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser for what stands before ``--``."""
    parser = argparse.ArgumentParser(
        "migrate-lab",
        usage=USAGE,
        description="Four hosts in namespaces of this machine, or with --vm four machines under QEMU: origin, "
        "destination, gateway, peer (neighbour is peer's second leg; segment holds the bridges).",
    )
    parser.add_argument("--vm", action="store_true", help="machines with kernels of their own, by QEMU")
    for option, what, kind in (
        ("kernel", "VERSION", by_host),
        ("cpu", "MODEL", by_host),
        ("clock", "SECONDS", seconds_by_host),
        ("arch", "ARCHITECTURE", by_host),
    ):
        text = f"HOST={what},... of --vm up"
        parser.add_argument(f"--{option}", type=kind, default={}, metavar=f"HOST={what}", help=text)
    parser.add_argument("--systemd", action="store_true", help="have the machines boot systemd")
    parser.add_argument("--name", default="lab", help="which lab; several run side by side (default: lab)")
    commands = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    commands.add_parser("up", help="bring the lab up; does nothing if it is up")
    commands.add_parser("down", help="end everything in it and leave nothing")
    status = commands.add_parser("status", help="print hosts and addresses; exit status 1 if it is not up")
    status.add_argument("--json", action="store_true")
    for verb, text in (("exec", "run a command in a host"), ("shell", "run bash in a host")):
        commands.add_parser(verb, help=text).add_argument("host", metavar="HOST")
    spawn = commands.add_parser("spawn", help="start a detached process in a host and print its PID there")
    spawn.add_argument("host", metavar="HOST")
    spawn.add_argument("--log", metavar="FILE", help="the host's file for its output (default: /dev/null)")
    power = commands.add_parser("power", help="cut a machine's power, or switch it on again")
    power.add_argument("host", metavar="HOST")
    power.add_argument("state", choices=("on", "off"))
    return parser


def by_host(text: str) -> dict[str, str]:
    """Return ``HOST=VALUE,HOST=VALUE`` as a dictionary. :raises ArgumentTypeError: it is something else."""
    pairs = [one.partition("=") for one in text.split(",")]
    if not all(host and equals and value for host, equals, value in pairs):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not HOST=VALUE, or several of them with commas between"
        )
    return {host: value for host, _, value in pairs}


def seconds_by_host(text: str) -> dict[str, int]:
    """Return the same with whole numbers. :raises ArgumentTypeError: it is something else."""
    try:
        return {host: int(seconds) for host, seconds in by_host(text).items()}
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: the clock is ahead by a whole number of seconds"
        ) from None


def make_lab(options: argparse.Namespace) -> Lab:
    """Return the lab that is meant."""
    if not options.vm:
        return Lab(options.name)
    from migrate.lab.vm.lab import VmLab  # Much that the other lab does not need.

    wishes = {"kernels": options.kernel, "cpus": options.cpu, "clocks": options.clock}
    wishes["architectures"] = options.arch
    return VmLab(options.name, **wishes, systemd=options.systemd)


def print_status(lab: Lab, as_json: bool) -> int:
    """Print what is known of *lab*; return 0 if it is up, else 1."""
    status = lab.status()
    if as_json:
        print(json.dumps(status))
    else:
        print(f"lab {lab.name!r} is {in_a_word(status)}")
        rows = {**status["hosts"], "service": status["service"]}
        for name, row in rows.items():
            print(f"{name:<12} {row['ipv4']:<12} {row['ipv6']:<10}", what_runs(row))
    return 0 if status["up"] else 1


def in_a_word(status: dict[str, Any]) -> str:
    """Return whether the lab is up; of machines, of which each may be off, which are."""
    off = [name for name, row in status["hosts"].items() if row.get("machine", {"on": True})["on"] is False]
    if status["up"] or not off:
        return "up" if status["up"] else "down"
    return f"up in part: {', '.join(off)} {'is' if len(off) == 1 else 'are'} off, and started by `up`"


def what_runs(row: dict[str, Any]) -> str:
    """Return what a line of the status ends with: a host's init, or a machine's kernel."""
    if machine := row.get("machine"):
        return f"Linux {machine['kernel']}, {machine['accelerator']}" if machine["on"] else "off"
    return f"init {row['init_pid']}" if row.get("init_pid") else ""


def up(lab: Lab) -> int:
    """Bring *lab* up and print it."""
    if not lab.up():
        print(f"lab {lab.name!r} was up already, and is as it was made", file=sys.stderr)
    return print_status(lab, as_json=False)


def down(lab: Lab) -> int:
    """Bring *lab* down."""
    if not lab.down():
        print(f"lab {lab.name!r} was not up", file=sys.stderr)
    return 0


def power(lab: Lab, host: str, wanted: str) -> int:
    """Switch a machine on or off."""
    (lab.power_on if wanted == "on" else lab.power_off)(lab.host(host).node)
    return 0


def inside(lab: Lab, host: str, action: Callable[[Host], int]) -> int:
    """Do *action* with *host*; return its status, or 125."""
    try:
        return action(lab.host(host))
    except (LabError, ProcessLookupError, PermissionError) as error:
        print(f"migrate-lab: {error}", file=sys.stderr)
        return enter.EXIT_LAB


def dispatch(options: argparse.Namespace, command: list[str]) -> int:
    """Do what was asked for."""
    lab = make_lab(options)
    match options.verb:
        case "up":
            return up(lab)
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
    standard_streams.open_closed()
    words = list(sys.argv[1:] if argv is None else argv)
    split = words.index("--") if "--" in words else len(words)
    parser = make_parser()
    options = parser.parse_args(words[:split])
    command = words[split + 1 :]
    if (options.verb in ("exec", "spawn")) != bool(command):
        parser.error("exec and spawn, and only they, need: -- CMD")
    wishes = (options.kernel, options.cpu, options.clock, options.arch, options.systemd)
    if not options.vm and (options.verb == "power" or any(wishes)):
        parser.error(
            "only machines have kernels, processors, clocks, systemd and power of their own: add --vm"
        )
    try:
        return dispatch(options, command)
    except LabError as error:
        print(f"migrate-lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("migrate-lab: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1


if __name__ == "__main__":
    sys.exit(main())
