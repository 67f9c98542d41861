"""Programs in odd environments: closed streams, small limits, no PATH, another encoding. As real processes."""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
from pathlib import Path

import inventories as two
import pytest

import migrate
import tcpcp

SHOW = """
import os, resource, sys
from migrate import environment
print(sorted(environment.prepare(again=True)))
print(os.umask(0), os.environ["PATH"], os.environ.get("HOME"), sys.getfilesystemencoding())
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], resource.getrlimit(resource.RLIMIT_FSIZE)[0])
"""
STANDARD = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
WALK = list(itertools.chain(*(itertools.combinations((0, 1, 2), count) for count in range(4))))
PATHS = f"{Path(tcpcp.__file__).parents[1]}:{Path(migrate.__file__).parents[1]}"


def shell(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of sh in no environment but that."""
    command = ["/bin/sh", "-c", f"{script}; exit $?"]
    environment["PYTHONPATH"] = PATHS
    return subprocess.run(
        command, capture_output=True, text=True, timeout=100, env={"PYTHONPATH": PATHS} | environment
    )


def test_a_thread_that_computes_keeps_no_other_one_waiting_for_long() -> None:
    show = (
        "from migrate import environment; environment.prepare(); import sys; print(sys.getswitchinterval())"
    )
    assert float(shell(f"{sys.executable} -c '{show}'").stdout) == pytest.approx(0.0005)


def closing(closed: tuple[int, ...]) -> str:
    return " ".join({0: "<&-", 1: ">&-", 2: "2>&-"}[number] for number in closed)


# --- closed streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", WALK)
def test_closed_streams(closed: tuple[int, ...]) -> None:
    """Every program ends as it would; nothing but what it says is written."""
    python = sys.executable
    expected = {
        "migrate.cli 0 x": 2,
        "migrate.cli --json 0 x": 2,
        "migrate.cli --version": 0,
        "migrate.destination.agent --version": 0,
        "migrate.lab --nonsense": 2,
        "migrate.criu.setup --help": 0,
        "tcpcp.cli --version": 0,
        "tcpcp.cli show /nonexistent": 1,
        "tcpcp.helper": 2,
    }
    if {0, 1} & set(closed):  # else it waits for its driver
        expected["migrate.destination.agent"] = 2
    lines = [f"{python} -m {words} {closing(closed)}; echo status $? >&2" for words in expected]
    done = shell("; ".join(lines), PATH=STANDARD)
    assert "Traceback" not in done.stderr
    found = [int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("status ")]
    assert found == list(expected.values()), done


@pytest.mark.parametrize("closed", WALK)
def test_what_was_closed_is_dev_null(closed: tuple[int, ...]) -> None:
    look = "import os, sys; from migrate import standard_streams as s; f = s.open_closed()"
    look += "; d = os.dup(0); print(1); print(2, file=sys.stderr); sys.stdin.fileno()"
    look += "; where = {n: os.readlink(f'/proc/self/fd/{n}') for n in f}"
    look += "; sys.exit(10 + len(f) if d > 2 and set(where.values()) <= {'/dev/null'} else 1)"
    done = shell(f'{sys.executable} -c "{look}" {closing(closed)}')
    assert done.returncode == 10 + len(closed), done
    assert done.stdout == ("" if 1 in closed else "1\n")
    assert done.stderr == ("" if 2 in closed else "2\n")


def test_both_files_are_the_same() -> None:
    files = (Path(package.__file__).with_name("standard_streams.py") for package in (migrate, tcpcp))
    assert len({file.read_text() for file in files}) == 1


# --- the rest --------------------------------------------------------------------------------------------


def shown(script: str = "", **environment: str) -> tuple[list[str], list[str], list[int]]:
    done = shell(f"{script} {sys.executable} -c '{SHOW}'", **environment)
    assert done.returncode == 0, done
    lines = done.stdout.splitlines()
    return lines[0].split(), lines[1].split(), [int(word) for word in lines[2].split()]


@pytest.mark.parametrize(
    ("umask", "ours"), [("000", 0o022), ("022", 0o022), ("077", 0o077), ("777", 0o077), ("027", 0o027)]
)
def test_umask(umask: str, ours: int) -> None:
    assert int(shown(f"umask {umask};")[1][0]) == ours


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ({}, STANDARD),
        ({"PATH": ""}, STANDARD),
        ({"PATH": "/opt/a:/usr/bin"}, "/opt/a:/usr/bin:" + STANDARD.replace(":/usr/bin", "")),
    ],
)
def test_path(path: dict[str, str], ours: str) -> None:
    assert shown(**path)[1][1] == ours


@pytest.mark.parametrize("home", [{}, {"HOME": ""}, {"HOME": "/nonexistent"}, {"HOME": "/dev/null"}])
def test_home(home: dict[str, str]) -> None:
    assert shown(**home)[1][2] == Path("~root").expanduser().as_posix()
    assert shown(HOME="/tmp")[1][2] == "/tmp"


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX"},
        {"LC_ALL": "xx_YY.KOI8-R"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_locale(locale: dict[str, str]) -> None:
    assert shown(**locale)[1][3] == "utf-8"


def test_what_cannot_be_written_is_escaped() -> None:
    look = "import sys; from migrate import standard_streams as s; s.open_closed(); print(chr(8364))"
    assert shell(f'{sys.executable} -c "{look}"', PYTHONIOENCODING="ascii").stdout == "\\u20ac\n"


@pytest.mark.parametrize("limits", ["ulimit -Sn 64;", "ulimit -f 8;", "ulimit -n 1024;"])
def test_limits(limits: str) -> None:
    """As root, which may raise them all; one that may not gets what the hard limit allows."""
    descriptors, file_size = shown(limits)[2]
    capable = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert descriptors >= (1024 if limits == "ulimit -n 1024;" else min(capable, 1 << 20))
    assert file_size == resource.RLIM_INFINITY or "-f" in limits


# --- what is said ----------------------------------------------------------------------------------------


def test_more_sockets_than_descriptors() -> None:
    process = two.process(sockets=[two.listener(), *(two.connection(peer_port=4000 + n) for n in range(900))])
    there = two.destination(most_descriptors=1024)
    reason = two.only(two.reasons(process, there=there))
    assert (reason.code, reason.role) == ("descriptors", "destination")
    assert reason.text.startswith("migrate may open 1024 files there and needs 1101, for 901 sockets")
    assert two.reasons(process, there=two.destination(most_descriptors=1101)) == []
    assert two.reasons(process) == []


@pytest.mark.parametrize("limit", ["-n 10", "-f 8", "-v 300000", "-t 100"])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root is asked for more than root")
def test_a_limit_that_cannot_be_raised_is_a_reason(limit: str) -> None:
    """A root without CAP_SYS_RESOURCE: it is told which limit, before anything that would fail for it."""
    # With a small limit of files Python 3.11 writes byte code that is cut short, and fails for it ever after.
    words = f"ulimit {limit}; exec {sys.executable} -B -m migrate.cli --check 1 nowhere"
    command = f"setpriv --bounding-set=-sys_resource -- sh -c '{words}'"
    done = shell(command, PATH=STANDARD)
    assert done.returncode == 3 and f"(ulimit {limit.split()[0]})" in done.stdout, done
    assert "a bug" not in done.stdout
