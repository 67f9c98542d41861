"""``migrate plugin install``, ``status`` and ``uninstall``: connections survive what others do with CRIU."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from migrate.criu import configuration, crun
from migrate.errors import Exit
from migrate.words import Parser
from tcpcp import exit_status
from tcpcp.criu import hook

#: Of systemd, where it runs.
_RUNNING = Path("/run/systemd/system")
_DONE = 0
EXITS = {0: "done", 2: "wrong arguments", 3: "it is not installed, does not work, or could not be done"}
UNIT = "tcpcp-criu.service"
UNITS = Path("/etc/systemd/system")
_TEXT = """\
# Written by `migrate plugin install`: answers the hooks of CRIU, so that nothing is loaded in a freeze.
[Unit]
Description=TCP connections of containers that CRIU dumps and restores

[Service]
ExecStart={python} -I -m tcpcp.criu.resident
Restart=always
RestartSec=1
# A dump that is under way must not lose its filter with the helper.
KillMode=mixed

[Install]
WantedBy=multi-user.target
"""


def parser() -> argparse.ArgumentParser:
    """What reads the words behind ``migrate plugin``."""
    made = Parser(
        prog="migrate plugin",
        description="From then on podman container checkpoint and restore, runc checkpoint and restore keep TCP"
        " connections: by CRIU's hooks, on both hosts.",
        epilog=exit_status.sentence(EXITS),
        allow_abbrev=False,
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="install|status|uninstall")
    install = commands.add_parser("install", help="write CRIU's configuration; what else is in it stays")
    install.add_argument(
        "--runtime", choices=list(configuration.RUNTIMES), default="all", help="whose (default: %(default)s)"
    )
    commands.add_parser("status", help="whether it is installed and works: 0, or 3 with what is wrong")
    commands.add_parser("uninstall", help="leave the configuration as it was")
    return made


def main(words: Sequence[str]) -> int:
    """Do what *words* ask, and say what was done; the exit status.

    :raises UsageError: they make no sense.
    """
    options = parser().parse_args(words)
    if os.geteuid() != 0:
        print("migrate plugin: needs root. Run it as root, e.g. by sudo.", file=sys.stderr)
        return Exit.UNTOUCHED
    try:
        if options.command == "install":
            return _install(options.runtime)
        return _status() if options.command == "status" else _uninstall()
    except (OSError, subprocess.SubprocessError) as error:
        print(f"migrate plugin: {error}", file=sys.stderr)
        return Exit.UNTOUCHED


def _install(runtime: str) -> int:
    found = _of_crun(runtime)
    if found and runtime == "crun" and crun.program():
        return _say([*found, "nothing was installed"])
    for file in configuration.install(runtime):
        print(f"{file}: has the plug-in")
    if _systemd():
        (UNITS / UNIT).write_text(_TEXT.format(python=sys.executable))
        _systemctl("daemon-reload")
        _systemctl("enable", UNIT)
        _systemctl("restart", UNIT)
        print(f"{UNIT}: enabled")
    elif not answers():
        print(f"there is no systemd here: start `{sys.executable} -I -m tcpcp.criu.resident` as root")
    for text in found:
        print(f"note: {text}")
    return _say(configuration.problems())


def _of_crun(runtime: str) -> list[str]:
    """Why the plug-in will do nothing for crun's containers, if it is installed for *runtime*.

    :raises OSError, subprocess.SubprocessError: crun does not say.
    """
    if "crun.conf" not in configuration.RUNTIMES[runtime]:
        return []
    if (path := crun.program()) is None:
        return ["there is no crun here"] if runtime == "crun" else []
    return [text] if (text := crun.without_criu(path)) else []


def _status() -> int:
    files = configuration.installed()
    for file in files:
        print(f"{file}: has the plug-in")
    if not files:
        return _say(["not installed"])
    if any(file.name == "crun.conf" for file in files):
        for text in _of_crun("podman"):
            print(f"note: {text}")
    found = configuration.problems()
    if not answers():
        found.append(
            "the resident helper does not answer: containers are frozen for longer, and may be reset"
        )
    return _say(found)


def _uninstall() -> int:
    for file in configuration.uninstall():
        print(f"{file}: as it was")
    if _systemd() and (UNITS / UNIT).exists():
        _systemctl("disable", "--now", UNIT)
        (UNITS / UNIT).unlink()
        _systemctl("daemon-reload")
        print(f"{UNIT}: gone")
    return _DONE


def _say(problems: Sequence[str]) -> int:
    for text in problems:
        print(text)
    return Exit.UNTOUCHED if problems else _DONE


def answers() -> bool:
    """Whether a resident helper is there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        try:
            asking.connect(hook.SOCKET)
        except OSError:
            return False
    return True


def _systemd() -> bool:
    return _RUNNING.is_dir() and shutil.which("systemctl") is not None


def _systemctl(*words: str) -> None:
    subprocess.run(["systemctl", *words], check=True, stdin=subprocess.DEVNULL)
