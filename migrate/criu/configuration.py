"""CRIU's configuration, as far as it is the plug-in's: a part of a file whose rest is the user's and stays.

What runs at the hooks is :mod:`tcpcp.criu.hooks`. CRIU reads one of the files for each way it is started: runc, and
whatever drives it (podman, Docker, containerd), names runc.conf, crun names crun.conf, or runc.conf where there is
none; for a CRIU that is started by hand there is default.conf.

Source: criu(8), "CONFIGURATION FILES"; runc's and crun's man pages, annotation org.criu.config.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from tcpcp.criu import hook, hooks

DIRECTORY = Path("/etc/criu")
#: Which files each runtime's containers go by. Podman uses the one or the other.
RUNTIMES = {
    "runc": ("runc.conf",),
    "crun": ("crun.conf",),
    "podman": ("runc.conf", "crun.conf"),
    "all": ("runc.conf", "crun.conf", "default.conf"),
}
SCRIPT = "tcpcp-hook"
BEGIN, END = "# tcpcp begins here: `migrate plugin uninstall` removes it", "# tcpcp ends here"

#: It has nothing to do where pre-restore could do it, which leaves a file to say so.
_ONCE = "post-setup-namespaces"
_HOOK = """\
#!/bin/sh
# Written by `migrate plugin install`: what CRIU runs at its hooks. At some of them there is nothing to be done.
[ "$TCPCP_HOOKS" != none ] || exit 0
case $CRTOOLS_SCRIPT_ACTION in
{once}) [ ! -e "$CRTOOLS_IMAGE_DIR/{held}" ] || exit 0 ;;
{stages}) ;;
*) exit 0 ;;
esac
exec </dev/null
# The same as {program} as far as somebody answers, in a fifth of its time, for the processes are frozen.
if command -v perl >/dev/null; then
    perl -e '
        my ($stage, @rest) = @ARGV;
        my $refused = $stage =~ /^(?:{may_fail})$/ ? 1 : 0;
        $SIG{{ALRM}} = sub {{ exit $refused }};
        $SIG{{PIPE}} = "IGNORE";
        alarm {wait_s};
        socket(my $asking, {unix}, {packets}, 0) or exit 3;
        connect($asking, pack("Sa108", {unix}, "{socket}")) or exit 3;
        send($asking, join(" ", @ARGV), 0);
        recv($asking, my $answer, 16, 0);
        exit($answer eq "ok" ? 0 : $refused);
    ' "$CRTOOLS_SCRIPT_ACTION" "${{CRTOOLS_INIT_PID:-0}}" "$CRTOOLS_IMAGE_DIR"
    status=$?
    [ $status = 3 ] || exit $status
fi
exec {python} -I -S {program}
"""


def script(python: str = sys.executable) -> str:
    """The action script: quick where nothing is to be done, and else hands over to *python*."""
    return _HOOK.format(
        once=_ONCE,
        stages="|".join(stage for stage in hooks.STAGES if stage != _ONCE),
        may_fail="|".join(hook.MAY_FAIL),
        held=hooks.HELD,
        wait_s=hook.WAIT_S,
        unix=int(socket.AF_UNIX),
        packets=int(socket.SOCK_SEQPACKET),
        socket=hook.SOCKET,
        python=python,
        program=hook.__file__,
    )


def block(directory: Path) -> str:
    """What is in a file of CRIU's: whose filter isolates, and what is called."""
    return f"{BEGIN}\naction-script {directory / SCRIPT}\nnetwork-lock skip\n{END}\n"


def without(text: str) -> str:
    """*text* as it is without the plug-in's part."""
    before, begun, rest = text.partition(f"{BEGIN}\n")
    if not begun:
        return text
    _, ended, after = rest.partition(f"{END}\n")
    return before + after if ended else before


def install(runtime: str, directory: Path = DIRECTORY) -> list[Path]:
    """Write what the runtime's files need, and the script they name. Where it is already it is written anew.

    :return: the files. :raises OSError: one cannot be written; those before it are.
    """
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    _write(directory / SCRIPT, script(), 0o755)
    files = [directory / name for name in RUNTIMES[runtime]]
    for file in files:
        rest = without(_read(file))
        line_feed = "\n" if rest and not rest.endswith("\n") else ""
        _write(file, rest + line_feed + block(directory), 0o644)
    return files


def uninstall(directory: Path = DIRECTORY) -> list[Path]:
    """Take the plug-in's part out of each file; one that has nothing else in it goes.

    :return: those that had one. :raises OSError: one cannot be written.
    """
    changed = installed(directory)
    for file in changed:
        if rest := without(_read(file)):
            _write(file, rest, 0o644)
        else:
            file.unlink()
    with contextlib.suppress(FileNotFoundError):
        (directory / SCRIPT).unlink()
    return changed


def installed(directory: Path = DIRECTORY) -> list[Path]:
    """The files with a part of the plug-in's."""
    return [file for name in RUNTIMES["all"] if BEGIN in _read(file := directory / name)]


def problems(directory: Path = DIRECTORY) -> list[str]:
    """Sentences: what keeps that which is installed from working."""
    return [*_of_script(directory / SCRIPT), *_of_pycriu(), *_of_files(installed(directory))]


def _of_script(path: Path) -> Iterable[str]:
    text = _read(path)
    if not text:
        yield f"{path} is missing: every checkpoint fails; run `migrate plugin install`"
    elif text != script():
        yield f"{path} is another version's, or another Python's: run `migrate plugin install`"


def _of_pycriu() -> Iterable[str]:
    try:
        import pycriu  # noqa: F401
    except ImportError:
        yield f"{sys.executable} has no pycriu, which the images are read with: run migrate-criu"


def _of_files(files: Iterable[Path]) -> Iterable[str]:
    for file in files:
        behind = _read(file).partition(f"{END}\n")[2]
        if any(line.split()[:1] == ["network-lock"] for line in behind.splitlines()):
            yield f"{file}: a network-lock behind the plug-in's part overrules it: put it before that"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _write(path: Path, text: str, mode: int) -> None:
    """All or nothing: CRIU may read it just now. The permissions of a file that is there stay."""
    new = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        mode = stat.S_IMODE(path.stat().st_mode)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, mode)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    new.replace(path)
