"""``migrate-criu``: gets a CRIU that works, and its pycriu, for the Python that runs migrate.

What refusals recommend has to be there where they are read. The work is done by the script ``criu-prefix`` beside
this file, which takes CRIU from Debian's testing suite and leaves the host's packages as they are.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from migrate import standard_streams

_SCRIPT = Path(__file__).with_name("criu-prefix")
_USAGE = """\
usage: migrate-criu [PREFIX]

Install CRIU and pycriu into PREFIX (default: %s) from Debian's testing suite, and link
them to where this migrate looks: %s. Needs apt-get and patchelf.
"""


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


def main(argv: list[str] | None = None) -> int:
    """The command; 0, 1 if it could not be done, or 2 for wrong arguments."""
    standard_streams.open_closed()
    words = sys.argv[1:] if argv is None else argv
    if len(words) > 1 or any(word.startswith("-") for word in words):
        helped = words in (["-h"], ["--help"])
        text = _USAGE % (default_prefix(), program_link())
        print(text, end="", file=sys.stdout if helped else sys.stderr)
        return 0 if helped else 2
    prefix = Path(words[0] if words else default_prefix()).absolute()
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
