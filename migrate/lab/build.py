"""Bringing a lab up: keys, five sets of namespaces at once, the network, then sshd in the hosts."""

import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from migrate.lab import enter, network, sshd, state, topology
from migrate.lab.errors import LabError, bringing_up
from migrate.lab.host import Builder, make_spec
from migrate.lab.state import Init

POLL_S = 0.002
SSHD_LOG = "/var/log/sshd.log"


def build(name: str, directory: Path, deadline: float) -> None:
    """Build lab *name* in its empty run directory, and save its state there.

    :param deadline: on the monotonic clock.
    :raises LabError: no host of it lives on. Nor does one if this process is killed meanwhile.
    """
    builders: list[Builder] = []
    try:
        with bringing_up(name):
            user_key, host_keys = generate_keys(directory)
            for node in topology.NODES:
                files = sshd.files(node, user_key, host_keys) if node in topology.HOSTS else {}
                builders.append(Builder(make_spec(name, node, directory, files), deadline))
            inits = {builder.host: builder.init() for builder in builders}
            network.connect({node: init.pid for node, init in inits.items()})
            for builder in builders:
                builder.wait_ready()
            _start_sshd({host: inits[host] for host in topology.HOSTS}, deadline)
            state.save(directory, inits)
            for builder in builders:
                builder.go()
    finally:
        for builder in builders:
            builder.close()


def generate_keys(directory: Path) -> tuple[sshd.KeyPair, dict[str, sshd.KeyPair]]:
    """Return the lab's login key and each host's own."""
    keys = sshd.generate(("user", *topology.HOSTS), directory)
    return keys.pop("user"), keys


def _start_sshd(inits: Mapping[str, Init], deadline: float) -> None:
    """Start sshd in every host and wait until all listen."""
    program = shutil.which("sshd", path=enter.PATH)
    if program is None:
        raise LabError("sshd is not installed: apt-get install openssh-server")
    runs = {host: _run(init, [program, "-E", SSHD_LOG]) for host, init in inits.items()}
    for host, run in runs.items():
        _, errors = run.communicate(timeout=_left(deadline))
        if run.returncode:
            raise LabError(f"{host}: sshd does not start: {errors.strip()}")
    for host, init in inits.items():
        _wait_listening(host, init, deadline)


def _run(init: Init, command: list[str]) -> subprocess.Popen[str]:
    words = [*enter.PROGRAM, "exec", str(init.pid), str(init.start_ticks)]
    return subprocess.Popen(
        words + command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_listening(host: str, init: Init, deadline: float) -> None:
    """Wait for sshd's PID file, which it writes once it listens (sshd.c, main())."""
    root = Path(f"/proc/{init.pid}/root")
    while not (root / sshd.PID_FILE.lstrip("/")).exists():
        if time.monotonic() > deadline:
            log = (root / SSHD_LOG.lstrip("/")).read_text(errors="replace")
            raise LabError(f"{host}: sshd does not listen: {log.strip()[-500:]}")
        time.sleep(POLL_S)


def _left(deadline: float) -> float:
    return max(0.1, deadline - time.monotonic())
