"""What ``migrate-lab`` takes before ``--``: verbs, options, and the values of these by host."""

import argparse

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
