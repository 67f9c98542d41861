"""A runtime's talk with CRIU goes through our hands: held at its request, heard at each stage, ended by any end.

The runtime here is a program that speaks as runc does, and its CRIU one that answers: what is tested lies between.
"""

from __future__ import annotations

import errno
import os
import sys
import textwrap
from pathlib import Path

import pytest

from migrate.criu.asked import Asking, said_in
from migrate.criu.runtime_worker import RuntimeWorker, options_of
from migrate.criu.worker import Options
from migrate.errors import CriuError
from migrate.processes import identity

RUNTIME = """
    import os, socket, subprocess, sys
    from pycriu import rpc_pb2 as rpc
    with open({said!r}, "w") as said:
        said.write('time="now" level=error msg="no such thing"\\n')
    if sys.argv[1:] == ["fail"]:
        sys.exit(1)

    def begun():
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        criu = subprocess.Popen(["criu", "swrk", str(theirs.fileno())], pass_fds=[theirs.fileno()])
        theirs.close()
        return ours, criu

    ours, criu = begun()
    ours.send(rpc.criu_req(type=rpc.VERSION).SerializeToString())
    assert rpc.criu_resp.FromString(ours.recv(65536)).version.major_number == 7
    ours.close()
    criu.wait()
    ours, criu = begun()
    if sys.argv[1:] == ["nonsense"]:
        ours.send(b"\\xff" * 3)
    opts = rpc.criu_opts(images_dir_fd=5, root="/rootfs", log_file="theirs", rst_sibling=True, tcp_established=True)
    ours.send(rpc.criu_req(type=rpc.RESTORE, opts=opts).SerializeToString())
    while (data := ours.recv(65536)):
        said = rpc.criu_resp.FromString(data)
        if said.type != rpc.NOTIFY:
            sys.exit(0 if said.success else 3)
        well = said.notify.script != sys.argv[1]
        if sys.argv[1] == "garbled":
            ours.send(b"\\xff" * 3)
        ours.send(rpc.criu_req(type=rpc.NOTIFY, notify_success=well).SerializeToString())
    sys.exit(4)
"""
CRIU = """
    import socket, sys
    from pycriu import rpc_pb2 as rpc
    talk = socket.socket(fileno=int(sys.argv[2]))
    asked = rpc.criu_req.FromString(talk.recv(65536))
    if asked.type == rpc.VERSION:
        said = rpc.criu_resp(type=rpc.VERSION, success=True)
        said.version.major_number, said.version.minor_number = 7, 1
        talk.send(said.SerializeToString())
        sys.exit(0)
    with open({heard!r}, "wb") as heard:
        heard.write(asked.SerializeToString())
    for stage in ("pre-restore", "post-restore", "pre-resume"):
        said = rpc.criu_resp(type=rpc.NOTIFY, success=True)
        said.notify.script, said.notify.pid = stage, 4711
        talk.send(said.SerializeToString())
        if not (answer := talk.recv(65536)) or not rpc.criu_req.FromString(answer).notify_success:
            sys.exit(1)
    talk.send(rpc.criu_resp(type=rpc.RESTORE, success=True).SerializeToString())
"""


def program(path: Path, text: str, **names: str) -> str:
    """A program of ours at *path*."""
    content = textwrap.dedent(text)
    for name, value in names.items():
        content = content.replace(f"{{{name}!r}}", repr(value))
    path.write_text(f"#!{sys.executable} -I\n{content}")
    path.chmod(0o755)
    return str(path)


def asking(tmp_path: Path, word: str) -> Asking:
    """The runtime, told to say no at the stage *word*."""
    here = tmp_path / "here"
    here.mkdir()
    runtime = program(tmp_path / "runc", RUNTIME, said=str(said_in(here)))
    criu = program(tmp_path / "real", CRIU, heard=str(tmp_path / "heard"))
    return Asking([runtime, word], here, criu)


def options(tmp_path: Path) -> Options:
    """Those of ours."""
    return Options(tmp_path, "ours.log", timeout_s=20)


def test_it_is_held_and_asks_for_what_it_knows_and_we_say_the_rest(tmp_path: Path) -> None:
    from pycriu import rpc_pb2 as rpc

    worker = RuntimeWorker(asking(tmp_path, "none"))
    try:
        assert worker.own_numbers and not (tmp_path / "heard").exists()  # CRIU has been told nothing
        worker.check()
        stages = [(stage.name, stage.pid) for stage in worker.restore(options(tmp_path))]
        assert stages == [(name, 4711) for name in ("pre-restore", "post-restore", "pre-resume")]
        assert worker.namespace_init == 4711 and worker.problems() == []
        heard = rpc.criu_req.FromString((tmp_path / "heard").read_bytes()).opts
        assert (heard.root, heard.rst_sibling, heard.log_file) == ("/rootfs", True, "ours.log")
        assert (heard.images_dir, heard.images_dir_fd, heard.network_lock) == (str(tmp_path), -1, rpc.SKIP)
    finally:
        worker.close()


def test_our_no_ends_both(tmp_path: Path) -> None:
    worker = RuntimeWorker(asking(tmp_path, "none"))
    going, criu = worker.restore(options(tmp_path)), (worker.pid, worker.start)
    assert next(going).name == "pre-restore"
    going.close()
    worker.close()
    assert not identity.alive(criu) and worker.process.returncode == 4


def test_the_runtimes_no_is_ours(tmp_path: Path) -> None:
    worker = RuntimeWorker(asking(tmp_path, "post-restore"))
    criu = worker.pid, worker.start
    with pytest.raises(CriuError, match="runc gave up at post-restore: no such thing"):
        list(worker.restore(options(tmp_path)))
    worker.close()
    assert not identity.alive(criu)


@pytest.mark.parametrize("which", ["runtime", "criu"])
def test_who_dies_is_missed(tmp_path: Path, which: str) -> None:
    worker = RuntimeWorker(asking(tmp_path, "none"))
    victim = (worker.pid, worker.start) if which == "criu" else identity.identity(worker.process.pid)
    assert identity.end([victim]) == []
    if which == "runtime":
        worker.process.wait()
    with pytest.raises(CriuError, match="ended in the middle"):
        worker.check()
    worker.close()


def test_a_runtime_that_asks_nothing_is_told_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(CriuError, match="runc ended without asking CRIU: no such thing"):
        RuntimeWorker(asking(tmp_path, "fail"))


def test_a_request_that_is_none_is_an_error_of_the_runtime(tmp_path: Path) -> None:
    with pytest.raises(CriuError, match="is no request"):
        RuntimeWorker(asking(tmp_path, "nonsense"))


def test_an_answer_that_is_none_is_no(tmp_path: Path) -> None:
    worker = RuntimeWorker(asking(tmp_path, "garbled"))
    with pytest.raises(CriuError, match="runc gave up at pre-restore"):
        list(worker.restore(options(tmp_path)))
    worker.close()


def test_a_runtime_that_cannot_be_watched_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def refuse(pid: int) -> int:
        started.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(CriuError, match="cannot watch"):
        asking(tmp_path, "none")
    assert not Path(f"/proc/{started[0]}").exists()


def test_descriptors_and_places_of_a_runtime_are_not_passed_on() -> None:
    from pycriu import rpc_pb2 as rpc

    request = rpc.criu_req(type=rpc.DUMP)
    request.opts.images_dir_fd, request.opts.freeze_cgroup, request.opts.leave_running = (
        3,
        "/freezer/web",
        True,
    )
    request.opts.ext_mnt.add(key="/etc/hosts", val="/etc/hosts")
    theirs = options_of(request)
    assert [one.name for one, _ in theirs.ListFields()] == ["ext_mnt"]
