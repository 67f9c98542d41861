"""What builds the lab's machines and is killed leaves no program running and nothing mounted, however deep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.wait import eventually

from migrate.lab.errors import LabError
from migrate.lab.vm import cache, root

#: A program with children of its own, one in a session of its own, that has mounted something.
DEEP = """
mkdir -p "$1/tree"
mount -t tmpfs of-the-build "$1/tree"
touch "$1/tree/here"
setsid sh -c 'trap "" TERM HUP INT; sleep "$1" & wait' sh "$2" &
touch "$1/ready"
wait
"""
RUNS = (
    "import sys; from migrate.lab.vm import cache; cache.run(['sh', '-c', sys.argv[1], 'sh', *sys.argv[2:]])"
)
#: The whole build of the image, with a stub of what takes long: mmdebstrap's last word is the tree.
BUILDS = """
from pathlib import Path
from migrate.lab.vm import root
root._python_packages = lambda directory: directory.mkdir()
root.root()
"""
#: It has mounted the machine's /dev/shm in the tree, as the real one does.
STUB = """#!/bin/sh
tree=; for word; do case $word in */tree) tree=$word ;; esac; done
mkdir -p "$tree/dev/shm"
mount --bind /dev/shm "$tree/dev/shm"
mktemp -d -t of-the-build-{seconds}.XXXXXX
sleep {seconds} &
touch {ready}
wait
"""
HANGS = """#!/bin/sh
touch {ready}
exec sleep {seconds}
"""
PROBES = """
from pathlib import Path
from migrate.lab.vm import accelerator, kernels, qemu
nothing = Path("/dev/null")
accelerator.boots("tcg", kernels.Kernel("none", nothing, nothing, nothing))
"""


def seconds() -> str:
    """How long the sleeper of this test sleeps: what it is known by."""
    return f"7{os.getpid()}"


def sleepers() -> list[int]:
    words = f"sleep\0{seconds()}\0".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cmdline").read_bytes() == words:
                found.append(int(path.name))
        except OSError:
            continue
    return found


def mounted(directory: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(directory) in line]


#: Whoever runs the tests may have it ignored, as a shell has for what it runs in the background.
HEEDS_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


@contextmanager
def begun(tmp_path: Path, program: str, *words: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """*program* in Python, which has come so far that there is the file ``ready``; all ends with the block."""
    surroundings = os.environ | environment
    command = [sys.executable, "-c", HEEDS_CTRL_C + program, *words]
    process = subprocess.Popen(command, env=surroundings, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: (tmp_path / "ready").exists() and sleepers(), "it is under way")
        yield process
    finally:
        process.kill()
        process.wait()
        for pid in sleepers():
            os.kill(pid, signal.SIGKILL)
        for line in mounted(tmp_path):
            subprocess.run(["umount", "-l", line.split()[4]], check=True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_program_ends_with_who_runs_it(tmp_path: Path, number: signal.Signals) -> None:
    with begun(tmp_path, RUNS, DEEP, str(tmp_path), seconds()) as process:
        assert not mounted(tmp_path) and not (tmp_path / "tree/here").exists()
        process.send_signal(number)
        process.wait(30)
        eventually(lambda: not sleepers(), "nothing of it runs")


def test_a_program_that_takes_too_long_ends_with_all_that_it_started(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"sh did not end within 0\.5 s"):
        cache.run(["sh", "-c", DEEP, "sh", tmp_path, seconds()], timeout_s=0.5)
    eventually(lambda: not sleepers(), "nothing of it runs")
    assert not mounted(tmp_path)


def test_a_build_of_the_image_that_is_killed(tmp_path: Path) -> None:
    """The next one empties the directory in which it was built: nothing of this machine's may be seen there."""
    stub = tmp_path / "bin/mmdebstrap"
    stub.parent.mkdir()
    stub.write_text(STUB.format(seconds=seconds(), ready=tmp_path / "ready"))
    stub.chmod(0o755)
    kept = tmp_path / "cache"
    path = f"{stub.parent}:{os.environ['PATH']}"
    with begun(tmp_path, BUILDS, PATH=path, MIGRATE_LAB_CACHE=str(kept)) as process:
        process.kill()
        process.wait(30)
        assert not mounted(tmp_path)
        assert [list(one.iterdir()) for one in kept.glob("root-*.new/tree/dev/shm")] == [[]]
        eventually(lambda: not sleepers(), "nothing of it runs")
        elsewhere = list(Path(tempfile.gettempdir()).glob(f"of-the-build-{seconds()}*"))
        for one in elsewhere:
            one.rmdir()
        assert (len(list(kept.glob("root-*.new/temporary/of-the-build*"))), elsewhere) == (1, [])


def test_what_an_image_is_made_with_has_its_temporary_files_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip too: of one that ends badly they stay there, for the next build to remove."""
    monkeypatch.setattr(sys, "executable", tmp_path / "pip")
    (tmp_path / "pip").write_text("#!/bin/sh\nmktemp -d -t of-pip.XXXXXX\nexit 1\n")
    (tmp_path / "pip").chmod(0o755)
    with pytest.raises(LabError, match="pip failed"):
        root._python_packages(tmp_path / "python")
    assert len(list((tmp_path / "temporary").glob("of-pip.*"))) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_probe_of_the_accelerator_that_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    stub = tmp_path / "bin/qemu-system-x86_64"
    stub.parent.mkdir()
    stub.write_text(HANGS.format(seconds=seconds(), ready=tmp_path / "ready"))
    stub.chmod(0o755)
    with begun(tmp_path, PROBES, PATH=f"{stub.parent}:{os.environ['PATH']}") as process:
        process.send_signal(number)
        process.wait(30)
        eventually(lambda: not sleepers(), "nothing of it runs")


def test_what_is_not_installed_is_told() -> None:
    with pytest.raises(LabError, match="no-such-program is not installed"):
        cache.run(["no-such-program"])


#: As each of these is run by itself: the cache's place is read once.
COMMANDS = [
    ["migrate.lab", "--vm", "--name", "no-cache", "up"],
    ["migrate.lab.vm.box"],
    ["migrate.lab.vm.probe"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
@pytest.mark.parametrize("place", ["a file", "below a file", "relative"])
def test_a_cache_that_cannot_be_used_is_told(tmp_path: Path, words: list[str], place: str) -> None:
    file = tmp_path / "file"
    file.write_text("")
    kept = file / "below" if place == "below a file" else file
    surroundings = os.environ | {"MIGRATE_LAB_CACHE": file.name if place == "relative" else str(kept)}
    run = subprocess.run(
        [sys.executable, "-m", *words],
        env=surroundings,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    said = run.stdout + run.stderr
    assert run.returncode == 1
    assert "Traceback" not in said
    assert f"is kept in {kept}: MIGRATE_LAB_CACHE names another directory" in said
