"""``make vagrant-test``: brings the lab up with Vagrant, moves two servers in it, and leaves nothing.

All of it (libvirt, QEMU, the networks, Vagrant's files) lives in the namespaces of one host of the lab of
namespaces, so the end of that host is the end of it, however the test ends: see libvirt_lab.py. Judged is what
clients saw: the redis client never connected again and its counter is right, the download has the file's digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from libvirt_lab import own_lab, start_libvirt

from migrate.lab import Host
from migrate.lab.vm import box

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from harness.wait import eventually  # noqa: E402
from harness.workloads import Client  # noqa: E402

UP_DEADLINE_S = 1500
#: When to give up what hangs: emulated machines on a busy host are slow.
COMMAND_DEADLINE_S = 900
SERVICE = "10.77.1.100"
SIZE_BYTES = 40_000_000
#: However slow the machines are.
PATIENT = "--max-gap 60 --timeout 120"
#: Slow until the move is over, as long as that takes; then as fast as it goes.
DOWNLOAD = (
    f"rm -f /tmp/go; curl -sS --fail http://{SERVICE}/file | {{ while [ ! -e /tmp/go ]; do"
    " dd bs=64k count=1 iflag=fullblock status=none; sleep 0.5; done; cat; } | sha256sum"
)
VAGRANT = (
    "VAGRANT_HOME=/tmp/vagrant-home VAGRANT_DOTFILE_PATH=/tmp/vagrant-state VAGRANT_CHECKPOINT_DISABLE=1"
    " VAGRANT_DEFAULT_PROVIDER=libvirt VAGRANT_BOX=migrate-lab LIBVIRT_DEFAULT_URI=qemu:///system"
)
NGINX = """
user root; worker_processes 1; daemon on; pid /srv/nginx/pid; error_log /srv/nginx/error.log;
events { worker_connections 50; }
http { access_log off; client_body_temp_path /srv/nginx/a; proxy_temp_path /srv/nginx/b;
  fastcgi_temp_path /srv/nginx/c; uwsgi_temp_path /srv/nginx/d; scgi_temp_path /srv/nginx/e;
  server { listen 80; root /srv/nginx; } }
"""


def say(what: str) -> None:
    """Tell what is done, and when."""
    print(f"vagrant-test: {time.monotonic() - BEGAN:5.0f} s  {what}", flush=True)


BEGAN = time.monotonic()


class Machines:
    """The machines of ``vagrant up``, from within the host of the lab in which they live."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def vagrant(self, *words: str, timeout_s: float = COMMAND_DEADLINE_S) -> str:
        """Run vagrant; print what it says if it fails."""
        command = f"cd {ROOT}/vagrant && exec env {VAGRANT} vagrant " + " ".join(words)
        done = self.host.exec(["sh", "-c", command], timeout=timeout_s, check=False)
        if done.returncode:
            sys.exit(f"vagrant {' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def learn_ways(self) -> None:
        """Have ssh know the machines, without vagrant's second of start each time."""
        self.host.exec(["sh", "-c", "cat > /tmp/ssh-config"], input=self.vagrant("ssh-config"))

    def command(self, machine: str, script: str) -> list[str]:
        """Return what runs *script* as root on *machine*."""
        return ["ssh", "-F", "/tmp/ssh-config", "-o", "BatchMode=yes", machine, f"sudo sh -c '{script}'"]

    def run(self, machine: str, script: str, *, timeout_s: float = COMMAND_DEADLINE_S) -> str:
        """Run it to its end; print what it says if it fails."""
        done = self.host.exec(self.command(machine, script), check=False, timeout=timeout_s)
        if done.returncode:
            sys.exit(f"{machine}: {script}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    @contextlib.contextmanager
    def started(self, machine: str, script: str, **options: Any) -> Iterator[subprocess.Popen[Any]]:
        """*script* runs on *machine* inside the block, at the longest: who leaves it early does not wait."""
        with self.host.popen(self.command(machine, script), **options) as run:
            try:
                yield run
            finally:
                run.kill()

    def write(self, machine: str, path: str, content: bytes) -> None:
        """Make the file *path* there."""
        with self.started(machine, f"cat > {path}", stdin=subprocess.PIPE) as run:
            run.communicate(content, timeout=COMMAND_DEADLINE_S)


def move_redis(machines: Machines) -> None:
    """A counter that a client increments all the time, with room for what moves it on an emulated processor."""
    options = '--bind 0.0.0.0 --protected-mode no --save "" --dir / --port 6379'
    machines.run("origin", f"setsid -f redis-server {options} </dev/null >/dev/null 2>&1; sleep 2")
    pid = machines.run("origin", "pidof redis-server")
    counter = f"exec python3 /opt/migrate-source/tests/workloads/redis_counter.py {SERVICE} 0.05"
    pipe = subprocess.PIPE
    command = machines.command("peer", counter)
    client = Client(machines.host.popen(command, stdin=pipe, stdout=pipe, text=True), "the counter")
    try:
        client.ready()
        say(f"moving redis, PID {pid}")
        print(machines.run("origin", f"migrate {PATIENT} {pid} destination 2>&1"))
        time.sleep(2)  # The client is to have counted on the destination, too.
        said = client.ask("stop")
    finally:
        client.close()
    stored = machines.run("peer", f"redis-cli -h {SERVICE} get counter")
    say(f"the client: {said}; redis: {stored}")
    assert (said["error"], said["wrong_answers"], said["reconnected"]) == ("", 0, False)
    assert stored == str(said["incremented"])
    assert machines.run("destination", "pidof redis-server")
    machines.run("destination", "kill $(pidof redis-server)")


def move_nginx(machines: Machines) -> None:
    """A download that goes on for longer than the move takes, the other way: there the address is now."""
    content = os.urandom(1_000_000) * (SIZE_BYTES // 1_000_000)
    digest = hashlib.sha256(content).hexdigest()
    for name in ("origin", "destination"):
        machines.run(name, "mkdir -p /srv/nginx")
        machines.write(name, "/srv/nginx/file", content)
        machines.write(name, "/srv/nginx/conf", NGINX.encode())
        machines.run(name, "touch -d @0 /srv/nginx/file /srv/nginx/conf; touch /srv/nginx/error.log")
    machines.run("destination", "setsid nginx -c /srv/nginx/conf </dev/null >/dev/null 2>&1")
    pid = machines.run("destination", "cat /srv/nginx/pid")
    with machines.started(
        "peer", DOWNLOAD, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as client:
        connected = "ss -Htn state established sport = :80"
        eventually(
            lambda: machines.run("destination", connected), "the download is under way", COMMAND_DEADLINE_S
        )
        say(f"moving nginx, PID {pid}, back")
        moved = machines.run("destination", f"migrate --copy-files {PATIENT} {pid} origin 2>&1")
        print(moved)
        assert re.search(r"connections +1\n", moved), "the download was over before the move was"
        machines.run("peer", "touch /tmp/go")
        said, _ = client.communicate(timeout=COMMAND_DEADLINE_S)
    say(f"the download: {said.split()[0]}; the file: {digest}")
    assert said.split()[0] == digest
    assert machines.run("origin", "pidof nginx")


def main() -> None:
    """Do it all."""
    say("box")
    if "--old-box" not in sys.argv:
        box.make(box.DEFAULT)
    with own_lab() as lab:
        machines = Machines(lab.hosts["segment"])
        start_libvirt(machines.host)
        machines.vagrant("box", "add", "--name", "migrate-lab", str(box.DEFAULT))
        say("vagrant up")
        said = machines.vagrant("up", timeout_s=UP_DEADLINE_S)
        print("\n".join(line for line in said.splitlines() if "provision:" in line))
        machines.learn_ways()
        move_redis(machines)
        move_nginx(machines)
        say("vagrant destroy")
        machines.vagrant("destroy", "-f")
        assert not machines.host.exec(
            ["virsh", "-q", "-c", "qemu:///system", "list", "--all", "--name"]
        ).stdout.strip()
    say("good: no client connected again, counter and digest are right")


if __name__ == "__main__":
    main()
