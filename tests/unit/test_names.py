"""What a tree takes by name, seen on real sockets of this host."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from inventories import destination, only, reasons

from migrate.inventory import names
from migrate.pb.session_pb2 import File, TakenName

PORT = 45353


def udp(
    family: socket.AddressFamily, address: str, *, reuse: bool = False, six_only: bool = False
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, six_only)
    sock.bind((address, PORT))
    return sock


@pytest.mark.parametrize(
    ("address", "theirs", "taken"),
    [
        ("127.0.0.1", {"family": socket.AF_INET, "address": "0.0.0.0"}, True),
        ("127.0.0.1", {"family": socket.AF_INET, "address": "127.0.0.2"}, False),
        ("127.0.0.1", {"family": socket.AF_INET6, "address": "::"}, True),
        ("127.0.0.1", {"family": socket.AF_INET6, "address": "::", "six_only": True}, False),
        ("127.0.0.1", {"family": socket.AF_INET, "address": "127.0.0.1", "reuse": True}, False),
    ],
)
def test_udp_ports(address: str, theirs: dict[str, object], taken: bool) -> None:
    with udp(socket.AF_INET, address, reuse=True) as ours:
        name = names.of_udp(ours, 1, 2)
    assert name is not None and (name.port, name.name) == (PORT, f"{address}:{PORT}")
    with udp(**theirs):  # type: ignore[arg-type]
        found = names.taken([name])
    assert bool(found) is taken
    if taken:
        reason = only(reasons(None, None, destination(taken_names=found)))
        assert reason.code == "udp-port-taken" and "PID" in reason.text and str(PORT) in reason.remedy


def test_an_unbound_udp_socket_and_a_raw_one_take_nothing() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unbound:
        assert names.of_udp(unbound, 1, 2) is None


def test_lines_of_the_kernel() -> None:
    line = "  77: 0100007F:14E9 00000000:0000 07 00000000:00000000 00:00000000 00000000  0  0 4711 2 0 0"
    found, inode = names.parse_udp(line)
    assert (found.local_ip, found.local_port, inode) == (bytes([127, 0, 0, 1]), 5353, 4711)
    six = "0: B80D0120000000000000000001000000:0035 0:0 07 0:0 0:0 0 0 0 12 2 0 0"
    assert names.parse_udp(six)[0].local_ip == socket.inet_pton(socket.AF_INET6, "2001:db8::1")


def test_paths_of_unix_sockets(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        name = names.of_unix(bound, str(path), 1, 2)
        assert name is not None and (name.kind, name.name) == (TakenName.PATH, str(path))
        found = names.taken([name])
        assert len(found) == 1 and found[0].holder and not found[0].occupied
        reason = only(reasons(None, None, destination(taken_names=found)))
        assert reason.code == "unix-path-taken" and found[0].holder in reason.text
    assert names.taken([name]) == []  # nobody has it any more
    path.unlink()
    assert names.taken([name]) == []
    path.write_text("a file")
    assert (
        only(reasons(None, None, destination(taken_names=names.taken([name])))).code == "unix-path-occupied"
    )
    folder = next(names.directories([name, name]))
    assert (folder.path, folder.use, folder.directory) == (str(tmp_path), File.SOCKET_DIRECTORY, True)


def test_a_path_that_was_bound_by_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("app.sock")
        name = names.of_unix(bound, "app.sock", 1, 2)
        assert name is not None and name.name == str(tmp_path / "app.sock")
        assert len(names.taken([name])) == 1
        (tmp_path / "app.sock").unlink()
        assert names.of_unix(bound, "app.sock", 1, 2) is None


def test_abstract_names_go_with_the_kind_of_socket() -> None:
    with socket.socket(socket.AF_UNIX) as bound, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        bound.bind("\0migrate-test")
        other.bind("\0migrate-test")
        name = names.of_unix(bound, "@migrate-test", 1, 2)
        assert name is not None and name.kind == TakenName.ABSTRACT
        bound.close()
        assert names.taken([name]) == []
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("\0migrate-test")
        found = names.taken([name])
    assert only(reasons(None, None, destination(taken_names=found))).code == "unix-name-taken"
