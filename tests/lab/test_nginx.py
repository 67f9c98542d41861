"""nginx, master and workers, is moved while curl downloads from it on two hosts; sha256 is the judge."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from harness.captures import Capture
from harness.hosts import MOVERS, spawn
from harness.left import processes
from harness.migrate import move
from harness.wait import eventually

from migrate.lab import Lab

pytestmark = pytest.mark.usefixtures("clean")

SIZE_BYTES = 200_000_000
FILE = "tmp/nginx/file"
#: All that belongs to nginx is below one directory, made on both hosts. Its workers are root's: where root
#: has no CAP_SYS_RESOURCE, CRIU cannot dump processes of other users.
CONFIGURATION = """
user root;
daemon off;
worker_processes 2;
pid /tmp/nginx/nginx.pid;
error_log /tmp/nginx/error.log;
events { worker_connections 100; }
http {
    access_log /tmp/nginx/access.log;
    client_body_temp_path /tmp/nginx/body;
    proxy_temp_path /tmp/nginx/proxy;
    fastcgi_temp_path /tmp/nginx/fastcgi;
    uwsgi_temp_path /tmp/nginx/uwsgi;
    scgi_temp_path /tmp/nginx/scgi;
    server {
        listen 80 reuseport;
        listen [::]:80 reuseport;
        root /tmp/nginx;
    }
}
"""


def furnish(lab: Lab) -> str:
    """Both hosts have the configuration and the same 200 MB; return their SHA-256."""
    piece = os.urandom(1_000_000)
    digest = hashlib.sha256()
    for number in range(SIZE_BYTES // len(piece)):
        digest.update(number.to_bytes(8, "big") + piece[8:])
    for name in MOVERS:
        path = lab.hosts[name].root / FILE
        path.parent.mkdir()
        (path.parent / "nginx.conf").write_text(CONFIGURATION)
        with path.open("wb") as file:
            for number in range(SIZE_BYTES // len(piece)):
                file.write(number.to_bytes(8, "big") + piece[8:])
    return digest.hexdigest()


def download(lab: Lab, name: str, target: str, *words: str) -> subprocess.Popen[bytes]:
    """curl on *name* into the file *target*, slowly."""
    command = ["curl", "-sS", "--fail", "--limit-rate", "15M", "-o", target, *words]
    return lab.hosts[name].popen([*command, f"http://{lab.service.ipv4}/file"], stderr=subprocess.PIPE)


def size(path: Path) -> int:
    """Bytes of a file that may not be there yet."""
    return path.stat().st_size if path.exists() else 0


def test_downloads(lab: Lab) -> None:
    wanted = furnish(lab)
    origin, destination, peer = (lab.hosts[name] for name in ("origin", "destination", "peer"))
    pid = spawn(origin, ["nginx", "-c", "/tmp/nginx/nginx.conf"])
    answers = ["curl", "-sS", "--head", f"http://{lab.service.ipv4}/file"]
    eventually(lambda: "200 OK" in peer.exec(answers, check=False).stdout, "nginx answers")
    served = sorted(words for words in processes(origin).values() if "nginx" in words)
    assert len(served) == 3
    targets = [peer.root / "tmp" / name for name in ("of-peer", "of-neighbour")]
    resets = "tcp port 80 and tcp[tcpflags] & tcp-rst != 0"
    with Capture(peer, "eth0", resets) as far, Capture(peer, "eth1", resets) as near:
        clients = [
            download(lab, "peer", "/tmp/of-peer"),
            download(lab, "neighbour", "/tmp/of-neighbour", "--interface", lab.hosts["neighbour"].ipv4),
        ]
        under_way = lambda: all(size(target) > SIZE_BYTES // 20 for target in targets)  # noqa: E731
        eventually(under_way, "the downloads are under way")
        moved = move(lab, pid, "--copy-files")
        middle = [size(target) for target in targets]
        assert max(middle) < SIZE_BYTES, middle
        for client in clients:
            _, said = client.communicate(timeout=60)
            assert client.returncode == 0, said
    assert moved.report["connections"] >= 2
    for target in targets:
        assert hashlib.sha256(target.read_bytes()).hexdigest() == wanted
        target.unlink()
    assert far.packets() == near.packets() == []
    assert sorted(words for words in processes(destination).values() if "nginx" in words) == served
    assert "200 OK" in peer.exec(answers).stdout
    print(f"at the end of the move {middle} bytes; frozen {moved.report['frozen_ms']} ms")
    assert_obeys(lab, pid)


def assert_obeys(lab: Lab, pid: int) -> None:
    """The master on the destination still obeys: a reload starts new workers, which serve."""
    destination = lab.hosts["destination"]
    before = {pid for pid, words in processes(destination).items() if "worker" in words}
    destination.exec(["kill", "-HUP", str(pid)])
    after = lambda: {pid for pid, words in processes(destination).items() if "nginx: worker process" in words}  # noqa: E731
    eventually(lambda: len(after()) == 2 and not after() & before, "there are new workers")
    assert (
        "200 OK"
        in lab.hosts["peer"].exec(["curl", "-sS", "--head", f"http://{lab.service.ipv4}/file"]).stdout
    )
    for name in MOVERS:
        lab.hosts[name].exec(["rm", "-r", "/tmp/nginx"])
