"""``migrate-criu``: gets a CRIU that works, and its pycriu, for the Python that runs migrate.

What refusals recommend has to be there where they are read. The work is done by the script ``criu-prefix`` beside
this file, which takes CRIU from Debian's testing suite and leaves the host's packages as they are.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from migrate import standard_streams
from tcpcp import exit_status
from tcpcp.version import VERSION

if TYPE_CHECKING:  # loaded when words are read; whoever runs CRIU loads this file
    import argparse

_SCRIPT = Path(__file__).with_name("criu-prefix")
EXITS = {0: "done", 1: "it could not be done", 2: "wrong arguments"}


def default_prefix() -> Path:
    """Within a virtual environment, else where what no package manager knows belongs."""
    inside = sys.prefix != sys.base_prefix
    return Path(sys.prefix, "criu") if inside else Path("/opt/migrate-criu")


def program_link() -> Path:
    """Beside the command ``migrate``; see :func:`migrate.criu.worker.program`."""
    return Path(sysconfig.get_path("scripts"), "criu")


def link(prefix: Path, program: Path, site: Path) -> None:
    """Have this Python find both.

    :param site: a directory of packages.
    :raises FileExistsError: *program* is there and no link of ours.
    """
    if program.exists() and not program.is_symlink():
        raise FileExistsError(f"{program} is there already, and is no link")
    program.parent.mkdir(parents=True, exist_ok=True)
    program.unlink(missing_ok=True)
    program.symlink_to(prefix / "bin" / "criu")
    (site / "pycriu.pth").write_text(f"{prefix / 'python'}\n")


def parser() -> argparse.ArgumentParser:
    """What reads the words."""
    import argparse

    made = argparse.ArgumentParser(
        prog="migrate-criu",
        description="Install CRIU and pycriu into PREFIX from Debian's testing suite, and link them to where this"
        " migrate looks: beside its command, and into its Python. Needs apt-get and patchelf.",
        epilog=exit_status.sentence(EXITS),
    )
    made.add_argument("--version", action="version", version=f"migrate-criu {VERSION}")
    made.add_argument(
        "prefix",
        metavar="PREFIX",
        nargs="?",
        default=default_prefix(),
        help="a directory; default: criu in the virtual environment, where there is none /opt/migrate-criu",
    )
    return made


def main(argv: list[str] | None = None) -> int:
    """The command; see :data:`EXITS`. Wrong usage exits itself."""
    standard_streams.open_closed()
    prefix = Path(parser().parse_args(argv).prefix).absolute()
    prefix.parent.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["bash", str(_SCRIPT), str(prefix)], stdin=subprocess.DEVNULL).returncode:
        return 1
    try:
        link(prefix, program_link(), Path(sysconfig.get_path("purelib")))
    except OSError as error:
        print(f"migrate-criu: {prefix} is complete and was not linked: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
