"""The command ``migrate-lab``: argv -> one call -> exit status.

0 done, 1 the lab cannot be brought up or down or (status) is not up, 2 usage. ``exec`` and ``shell``
return the command's own status; 125, 126 and 127 are the lab's: no such lab, cannot be executed, not found.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence

from migrate import standard_streams
from migrate.lab import enter
from migrate.lab.errors import LabError
from migrate.lab.lab import Lab

USAGE = """migrate-lab [--name NAME] up | down | status [--json]
       migrate-lab [--name NAME] exec HOST -- CMD [ARG ...]
       migrate-lab [--name NAME] spawn HOST [--log FILE] -- CMD [ARG ...]
       migrate-lab [--name NAME] shell HOST"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser for what stands before ``--``."""
    parser = argparse.ArgumentParser(
        "migrate-lab",
        usage=USAGE,
        description="Four hosts in namespaces of this machine: origin, destination, gateway, peer "
        "(neighbour is peer's second leg; segment holds the bridges).",
    )
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
    return parser


def print_status(lab: Lab, as_json: bool) -> int:
    """Print what is known of *lab*; return 0 if it is up, else 1."""
    status = lab.status()
    if as_json:
        print(json.dumps(status))
    else:
        print(f"lab {lab.name!r} is {'up' if status['up'] else 'down'}")
        rows = {**status["hosts"], "service": status["service"]}
        for name, row in rows.items():
            pid = row.get("init_pid")
            print(f"{name:<12} {row['ipv4']:<12} {row['ipv6']:<10}", f"init {pid}" if pid else "")
    return 0 if status["up"] else 1


def up(lab: Lab) -> int:
    """Bring *lab* up and print it."""
    if not lab.up():
        print(f"lab {lab.name!r} was up already", file=sys.stderr)
    return print_status(lab, as_json=False)


def down(lab: Lab) -> int:
    """Bring *lab* down."""
    if not lab.down():
        print(f"lab {lab.name!r} was not up", file=sys.stderr)
    return 0


def inside(lab: Lab, host: str, action: Callable[[int, int], int]) -> int:
    """Do *action* with the PID and start time of the init of *host*; return its status, or 125."""
    try:
        return action(*lab.host(host).init)
    except (LabError, ProcessLookupError, PermissionError) as error:
        print(f"migrate-lab: {error}", file=sys.stderr)
        return enter.EXIT_LAB


def dispatch(options: argparse.Namespace, command: list[str]) -> int:
    """Do what was asked for."""
    lab = Lab(options.name)
    match options.verb:
        case "up":
            return up(lab)
        case "down":
            return down(lab)
        case "status":
            return print_status(lab, options.json)
        case "spawn":
            return inside(lab, options.host, lambda pid, ticks: enter.spawn(pid, ticks, options.log, command))
        case "shell":
            return inside(lab, options.host, lambda pid, ticks: enter.run(pid, ticks, ["/bin/bash", "-l"]))
        case _:
            return inside(lab, options.host, lambda pid, ticks: enter.run(pid, ticks, command))


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
    try:
        return dispatch(options, command)
    except LabError as error:
        print(f"migrate-lab: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1


if __name__ == "__main__":
    sys.exit(main())
