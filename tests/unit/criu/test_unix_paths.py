"""Unix sockets of images get the paths that they had last, and a rollback removes sockets and nothing else."""

from __future__ import annotations

import os
import re
import socket
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest

from migrate.criu import records, unix_paths
from migrate.errors import ProtocolError, Taken
from migrate.pb.session_pb2 import TakenName

NEW = TakenName(kind=TakenName.PATH, name="/run/a", bound_name="/run/a.new", mode=0o140606, uid=3, gid=4)


def entry(number: int, name: bytes, **more: object) -> bytes:
    from pycriu.images import pb

    fields = {
        "id": number,
        "ino": number,
        "type": 1,
        "state": 10,
        "flags": 2,
        "uflags": more.pop("uflags", 0),
        "backlog": 1,
        "peer": 0,
    }
    fown = pb.fown_entry(uid=0, euid=0, signum=0, pid_type=0, pid=0)
    opts = pb.sk_opts_entry(
        so_sndbuf=1,
        so_rcvbuf=1,
        so_snd_tmo_sec=0,
        so_snd_tmo_usec=0,
        so_rcv_tmo_sec=0,
        so_rcv_tmo_usec=0,
    )
    usk = pb.unix_sk_entry(**fields, fown=fown, opts=opts, name=name, **more)
    message = pb.file_entry(type=pb.fd_types.Value("UNIXSK"), id=number, usk=usk).SerializeToString()
    return struct.pack("<I", len(message)) + message


def read(files: bytes) -> list[object]:
    from pycriu.images import pb

    return [one.usk for one, _ in records.read(files, pb.file_entry, "files.img")]


def test_only_what_was_renamed_gets_another_name() -> None:
    image = b"magic123" + entry(1, b"/run/b\0") + entry(2, b"/run/a.new\0", deleted=True, name_dir="/run")
    first, second = read(unix_paths.patched(image, {NEW.bound_name: NEW}))
    assert first.name == b"/run/b\0"
    assert (second.name, second.deleted, second.name_dir, second.ino) == (b"/run/a\0", False, "", 2)
    assert (second.file_perms.mode, second.file_perms.uid, second.file_perms.gid) == (0o140606, 3, 4)
    assert unix_paths.patched(image, {}) == image


@pytest.mark.parametrize("damage", [b"\1", b"\5\0\0\0\xff\xff\xff\xff\xff"])
def test_what_is_no_image(damage: bytes) -> None:
    with pytest.raises(ProtocolError):
        unix_paths.patched(b"magic123" + damage, {NEW.bound_name: NEW})


def test_removed_are_sockets_that_nobody_uses(tmp_path: Path) -> None:
    kept = socket.socket(socket.AF_UNIX)
    dead = socket.socket(socket.AF_UNIX)
    kept.bind(str(tmp_path / "kept"))
    dead.bind(str(tmp_path / "dead"))
    dead.close()
    (tmp_path / "file").write_text("a program's own")
    (tmp_path / "link").symlink_to("dead")
    wanted = [
        TakenName(name=str(tmp_path / name)) for name in ("kept", "dead", "file", "link", "none", "no/ne")
    ]
    assert unix_paths.absent(wanted) == [wanted[4].name, wanted[5].name]
    said = unix_paths.remove([one.name for one in wanted])
    assert said == "1 unix sockets removed"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "kept", "link"]
    kept.close()


def test_where_criu_would_take_a_socket_from_somebody(tmp_path: Path) -> None:
    """Whatever the origin has said of its names: also those of deleted files, relative ones and strange ones."""
    images = tmp_path / "images"
    images.mkdir()
    assert unix_paths.in_use(unix_paths.binds(images)) == []
    folder = bytes(tmp_path)
    ours = [
        entry(1, folder + b"/live\0", deleted=True),
        entry(2, b"strange\n\xff", name_dir=str(tmp_path)),
        entry(3, folder + b"/dead\0"),
        entry(4, folder + b"/file"),
        entry(5, folder + b"/none"),
        entry(6, b"\0abstract"),
        entry(7, b""),
        entry(8, folder + b"/stays", uflags=1),
    ]
    (images / "files.img").write_bytes(b"magic123" + b"".join(ours))
    (tmp_path / "file").write_text("a program's own")
    with ExitStack() as kept:
        for name in (b"live", b"strange\n\xff", b"stays", b"dead"):
            sock = kept.enter_context(socket.socket(socket.AF_UNIX))
            sock.bind(folder + b"/" + name)
        sock.close()
        found = unix_paths.in_use(unix_paths.binds(images))
        assert found == sorted([f"{tmp_path}/live", os.fsdecode(folder + b"/strange\n\xff")])
        with pytest.raises(Taken, match=re.escape(f"unix socket {tmp_path}/live, ")) as raised:
            unix_paths.require_free(unix_paths.binds(images))
        assert raised.value.problem.hint
    unix_paths.require_free(unix_paths.binds(images))
