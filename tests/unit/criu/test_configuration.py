"""The plug-in's part of CRIU's configuration: what the user had stays, to the byte."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from migrate.criu import configuration
from migrate.criu.configuration import RUNTIMES, SCRIPT
from tcpcp.criu import hook, hooks

THEIRS = ["", "log-file x.log\n", "# no line feed at the end", "action-script /mine\nnetwork-lock iptables\n"]


def contents(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


@pytest.mark.parametrize("theirs", THEIRS)
def test_what_the_user_had_stays(tmp_path: Path, theirs: str) -> None:
    file = tmp_path / "runc.conf"
    file.write_text(theirs)
    configuration.install("runc", tmp_path)
    assert file.read_text().startswith(theirs)
    configuration.uninstall(tmp_path)
    # A line that did not end has to, for ours to follow it.
    left = contents(tmp_path).get("runc.conf", "")
    assert left == theirs or left == theirs + "\n"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_it_is_in_the_files_of_the_runtime_and_goes(tmp_path: Path, runtime: str) -> None:
    configuration.install(runtime, tmp_path)
    assert {*contents(tmp_path)} == {SCRIPT, *RUNTIMES[runtime]}
    configuration.uninstall(tmp_path)
    assert contents(tmp_path) == {}


def test_installed_twice_it_is_there_once(tmp_path: Path) -> None:
    (tmp_path / "runc.conf").write_text("tcp-established\n")
    configuration.install("all", tmp_path)
    once = contents(tmp_path)
    configuration.install("runc", tmp_path)
    assert contents(tmp_path) == once


def test_permissions_stay(tmp_path: Path) -> None:
    file = tmp_path / "runc.conf"
    file.write_text("tcp-established\n")
    file.chmod(0o600)
    configuration.install("runc", tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / SCRIPT).stat().st_mode & 0o777 == 0o755


def test_a_lock_behind_it_overrules_it(tmp_path: Path) -> None:
    configuration.install("runc", tmp_path)
    assert configuration.problems(tmp_path) == []
    with (tmp_path / "runc.conf").open("a") as file:
        file.write("network-lock iptables\n")
    (text,) = configuration.problems(tmp_path)
    assert "overrules" in text


def test_a_script_that_is_gone_is_told(tmp_path: Path) -> None:
    configuration.install("runc", tmp_path)
    (tmp_path / SCRIPT).unlink()
    (text,) = configuration.problems(tmp_path)
    assert "every checkpoint fails" in text


@pytest.mark.parametrize("stage", ["pre-dump", "setup-namespaces", "post-restore", "post-resume", ""])
def test_where_nothing_is_to_be_done_no_python_starts(tmp_path: Path, stage: str) -> None:
    script = tmp_path / SCRIPT
    script.write_text(configuration.script(python="/bin/false"))
    subprocess.run(["sh", str(script)], env={"CRTOOLS_SCRIPT_ACTION": stage}, check=True)


@pytest.mark.parametrize("stage", hooks.STAGES)
def test_elsewhere_one_does(tmp_path: Path, stage: str) -> None:
    script = tmp_path / SCRIPT
    script.write_text(configuration.script(python="/bin/false"))
    environment = {"CRTOOLS_SCRIPT_ACTION": stage, "CRTOOLS_IMAGE_DIR": str(tmp_path)}
    assert subprocess.run(["sh", str(script)], env=environment).returncode == 1


def test_migrate_has_hooks_of_its_own(tmp_path: Path) -> None:
    """Its CRIU reads default.conf as well."""
    script = tmp_path / SCRIPT
    script.write_text(configuration.script(python="/bin/false"))
    environment = {"CRTOOLS_SCRIPT_ACTION": "network-lock", "TCPCP_HOOKS": "none"}
    subprocess.run(["sh", str(script)], env=environment, check=True)


def test_it_is_held_once(tmp_path: Path) -> None:
    script = tmp_path / SCRIPT
    script.write_text(configuration.script(python="/bin/false"))
    (tmp_path / hooks.HELD).touch()
    environment = {"CRTOOLS_SCRIPT_ACTION": "post-setup-namespaces", "CRTOOLS_IMAGE_DIR": str(tmp_path)}
    subprocess.run(["sh", str(script)], env=environment, check=True)


@pytest.mark.parametrize("answer", [b"ok", b"no", b""])
@pytest.mark.parametrize("stage", ["network-lock", "pre-restore"])
@pytest.mark.parametrize("perl", [True, False])
def test_what_the_helper_answers(tmp_path: Path, stage: str, answer: bytes, perl: bool) -> None:
    """Asked by perl, where it is, or by our program; an end without an answer is none. Only a dump is refused."""
    heard = []

    def serve() -> None:
        asking, _ = listener.accept()
        with asking:
            heard.append(asking.recv(4096))
            if answer:
                asking.send(answer)

    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        program = tmp_path / "hook.py"
        program.write_text(Path(hook.__file__).read_text().replace(hook.SOCKET, path))
        text = configuration.script().replace(hook.SOCKET, path).replace(hook.__file__, str(program))
        script = tmp_path / SCRIPT
        script.write_text(text if perl else text.replace("command -v perl", "false"))
        environment = {
            "CRTOOLS_SCRIPT_ACTION": stage,
            "CRTOOLS_IMAGE_DIR": "/images",
            "CRTOOLS_INIT_PID": "7",
        }
        done = subprocess.run(["/bin/sh", str(script)], env=os.environ | environment)
        thread.join()
    assert heard == [f"{stage} 7 /images".encode()]
    assert done.returncode == int(answer != b"ok" and stage == "network-lock")


def test_the_program_knows_what_may_fail() -> None:
    """It imports nothing, so it has a table of its own."""
    assert frozenset(hook.MAY_FAIL) == hooks.MAY_FAIL


@pytest.mark.parametrize(("stage", "status"), [("network-lock", 1), ("post-dump", 1), ("pre-restore", 0)])
def test_a_hook_that_cannot_work_refuses_a_dump_and_no_restore(stage: str, status: int) -> None:
    environment = {"CRTOOLS_SCRIPT_ACTION": stage, "CRTOOLS_IMAGE_DIR": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", hook.__file__], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, stage in done.stderr) == (status, True)
