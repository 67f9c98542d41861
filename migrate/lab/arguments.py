"""What ``migrate-lab`` takes before ``--``: verbs, options, and the values of these by host."""

import argparse
from collections.abc import Sequence
from typing import Any

from tcpcp import exit_status

USES = (
    "migrate-lab [--vm] [--name NAME] up | down | status [--json]",
    "migrate-lab [--vm] [--name NAME] exec HOST -- CMD [ARG ...]",
    "migrate-lab [--vm] [--name NAME] spawn HOST [--log FILE] -- CMD [ARG ...]",
    "migrate-lab [--vm] [--name NAME] shell HOST",
    "migrate-lab --vm [--name NAME] [--kernel HOST=VERSION,...] [--cpu HOST=MODEL,...]\n"
    "                   [--clock HOST=SECONDS,...] [--arch HOST=ARCHITECTURE,...] [--systemd] up",
    "migrate-lab --vm [--name NAME] power HOST on | off",
)
VERBS = {
    "up": "bring the lab up; does nothing if it is up",
    "down": "end everything in it and leave nothing",
    "status": "print hosts and addresses; exit status 1 if it is not up",
    "exec": "run a command in a host",
    "shell": "run bash in a host",
    "spawn": "start a detached process in a host and print its PID there",
    "power": "cut a machine's power, or switch it on again",
}
OF_A_HOST = ("exec", "shell", "spawn", "power")
#: Those of exec and shell are else the command's own.
EXITS = {
    0: "done",
    1: "the lab cannot be brought up or down, or (status) is not up",
    2: "wrong arguments",
    125: "of exec, spawn and shell: there is no such lab or log",
    126: "the command cannot be executed",
    127: "the command was not found; else that of the command itself",
}
#: What machines are made of, said to ``up`` alone: option, what its values are called.
OF_UP = {"kernel": "VERSION", "cpu": "MODEL", "clock": "SECONDS", "arch": "ARCHITECTURE"}


def usage(verb: str = "") -> str:
    """Return how the command is used; with *verb*, how that is."""
    return "\n       ".join(one for one in USES if not verb or verb in one.split())


def make_parser() -> argparse.ArgumentParser:
    """Return the parser for what stands before ``--``."""
    parser = argparse.ArgumentParser(
        "migrate-lab",
        usage=usage(),
        description="Four hosts in namespaces of this machine, or with --vm four machines under QEMU: origin, "
        "destination, gateway, peer (neighbour is peer's second leg; segment holds the bridges).",
        epilog=exit_status.sentence(EXITS),
    )
    parser.add_argument("--vm", action="store_true", help="machines with kernels of their own, by QEMU")
    for option, what in OF_UP.items():
        kind = seconds_by_host if option == "clock" else by_host
        text = f"HOST={what},... of --vm up; may be said for one host after the other"
        parser.add_argument(
            f"--{option}", type=kind, action=More, default={}, metavar=f"HOST={what}", help=text
        )
    parser.add_argument("--systemd", action="store_true", help="have the machines boot systemd")
    parser.add_argument("--name", default="lab", help="which lab; several run side by side (default: lab)")
    commands = parser.add_subparsers(dest="verb", required=True, metavar="VERB", prog=parser.prog)
    for verb, text in VERBS.items():
        command = commands.add_parser(verb, usage=usage(verb), help=text, description=text)
        if verb == "status":
            command.add_argument("--json", action="store_true", help="as one JSON object")
        if verb in OF_A_HOST:
            command.add_argument("host", metavar="HOST", help="which host of the lab")
        if verb == "spawn":
            command.add_argument(
                "--log", metavar="FILE", help="the host's file for its output (default: /dev/null)"
            )
        if verb == "power":
            command.add_argument("state", choices=("on", "off"), help="what it shall be")
    return parser


def wishes(options: argparse.Namespace) -> list[str]:
    """Return the options that were given of those that say what machines are made of."""
    return [f"--{option}" for option in (*OF_UP, "systemd") if getattr(options, option)]


def parse(given: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return what *given* says before ``--``, and the command after it; a usage error ends this process."""
    parser = make_parser()
    split = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:split])
    command = given[split + 1 :]
    wanted = wishes(options)
    if (options.verb in ("exec", "spawn")) != bool(command):
        parser.error("exec and spawn, and only they, need: -- CMD")
    if not options.vm and (options.verb == "power" or wanted):
        parser.error(
            "only machines have kernels, processors, clocks, systemd and power of their own: add --vm"
        )
    if wanted and options.verb != "up":
        parser.error(
            f"{', '.join(wanted)}: for up alone, which makes the machines; {options.verb} takes none"
        )
    return options, command


class More(argparse.Action):
    """An option that adds values by host to those that were said before it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | dict[str, Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Add the *values*. :raises ArgumentError: a host had one already."""
        before, more = getattr(namespace, self.dest), values if isinstance(values, dict) else {}
        if twice := sorted(set(before) & set(more)):
            raise argparse.ArgumentError(self, f"{', '.join(twice)} is in it twice")
        setattr(namespace, self.dest, before | more)


def by_host(text: str) -> dict[str, str]:
    """Return ``HOST=VALUE,HOST=VALUE`` as a dictionary. :raises ArgumentTypeError: it is something else."""
    pairs = [one.partition("=") for one in text.split(",")]
    if not all(host and equals and value for host, equals, value in pairs):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not HOST=VALUE, or several of them with commas between"
        )
    hosts = [host for host, _, _ in pairs]
    if twice := sorted({host for host in hosts if hosts.count(host) > 1}):
        raise argparse.ArgumentTypeError(f"{text!r}: {', '.join(twice)} is in it twice")
    return {host: value for host, _, value in pairs}


def seconds_by_host(text: str) -> dict[str, int]:
    """Return the same with whole numbers. :raises ArgumentTypeError: it is something else."""
    try:
        return {host: int(seconds) for host, seconds in by_host(text).items()}
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: the clock is ahead by a whole number of seconds"
        ) from None
