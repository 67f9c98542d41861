"""Unix sockets of images get the paths that they had last, and a rollback removes sockets and nothing else."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from migrate.criu import records, unix_paths
from migrate.errors import ProtocolError
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
        "uflags": 0,
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
