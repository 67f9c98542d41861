"""What shells complete, asked of the shells themselves: bash, zsh and fish at a terminal of their own."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60
#: How each is started, the file that it begins with, and what has to be in it.
STARTS = {
    "bash": (["bash", "--noprofile", "--rcfile", ".bashrc", "-i"], ". {folder}/bash/{name}"),
    "zsh": (["zsh", "-d", "-i"], "fpath=({folder}/zsh $fpath); autoload -Uz compinit; compinit -u -D"),
}
#: The program is a function that shows its words, in brackets.
BEGINS = """
{prepares}
{name}() {{ printf '<%s>' "$@"; echo '=end='; }}
PS1='=ready='
"""


@contextlib.contextmanager
def terminal(shell: str, home: Path) -> Iterator[int]:
    """A shell at a terminal of its own; what we read and write at."""
    command, environment = STARTS[shell][0], about(home) | {"TERM": "dumb"}
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(home)
        os.execvpe(command[0], command, environment)
    try:
        yield master
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(master)


def about(home: Path) -> dict[str, str]:
    """What a shell is started with."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"}


def read_until(master: int, wanted: str) -> str:
    """What is shown, up to a match of *wanted*."""
    found, end = "", time.monotonic() + PATIENCE_S
    while not re.search(wanted, found):
        ready, _, _ = select.select([master], [], [], max(0, end - time.monotonic()))
        assert ready, f"no {wanted!r} in {found!r}"
        found += os.read(master, 65536).decode(errors="replace")
    return found


def completed(shell: str, line: str, home: Path) -> list[str]:
    """The words of *line* after a tab behind it."""
    name = line.split()[0]
    folder = next(one for one in (ROOT / "manual", ROOT / "plugin/manual") if (one / "bash" / name).exists())
    if shell == "fish":
        return by_fish(f"source {folder}/fish/{name}.fish; complete -C '{line}'", line, home)
    begins = BEGINS.format(prepares=STARTS[shell][1].format(folder=folder, name=name), name=name)
    (home / f".{shell}rc").write_text(begins)
    with terminal(shell, home) as master:
        read_until(master, "=ready=")
        os.write(master, f"{line}\t\n".encode())
        return re.findall("<(.*?)>", read_until(master, "=end="))


def by_fish(script: str, line: str, home: Path) -> list[str]:
    """The same from fish, which also says what it would complete; one word alone is what it makes of the last."""
    command = ["fish", "--no-config", "-c", script]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, env=about(home), cwd=home
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [*line.split()[1:-1], *(one.partition("\t")[0] for one in done.stdout.splitlines())]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text("Host xanadu.example *.wild\n  User root\n")
    return tmp_path


@pytest.mark.parametrize("shell", [*STARTS, "fish"])
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("migrate --che", ["--check"]),
        ("migrate --copy-tree /et", ["--copy-tree", "/etc"]),
        ("migrate plug", ["plugin"]),
        ("migrate plugin unin", ["plugin", "uninstall"]),
        ("migrate doctor xana", ["doctor", "xanadu.example"]),
        ("migrate 1 xana", ["1", "xanadu.example"]),
        ("migrate-lab stat", ["status"]),
        ("migrate-agent --gat", ["--gateway"]),
        ("migrate-criu --ver", ["--version"]),
        ("tcpcp sh", ["show"]),
        ("tcpcp-helper --max-im", ["--max-image-bytes"]),
    ],
)
def test_what_a_tab_makes_of_it(shell: str, line: str, wanted: list[str], home: Path) -> None:
    # zsh takes the slash behind a directory away again where the next word begins.
    assert [one.rstrip("/") for one in completed(shell, line, home)] == wanted


@pytest.mark.parametrize("shell", [*STARTS, "fish"])
def test_a_process_by_its_name(shell: str, home: Path, tmp_path: Path) -> None:
    program = tmp_path / "zzyzx-7"
    shutil.copy(shutil.which("sleep") or "", program)
    process = subprocess.Popen([program, "1000"])
    try:
        assert completed(shell, "migrate zzyz", home) == ["zzyzx-7"]
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("shell", [*STARTS, "fish"])
def test_a_name_is_not_run(shell: str, home: Path, tmp_path: Path) -> None:
    """Whoever can start a program chooses its name, and root presses the key."""
    program = tmp_path / "$(>hit)"
    shutil.copy(shutil.which("sleep") or "", program)
    process = subprocess.Popen([program, "1000"])
    try:
        assert completed(shell, "migrate plug", home) == ["plugin"]
    finally:
        process.kill()
        process.wait()
    assert not (home / "hit").exists()
