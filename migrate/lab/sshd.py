"""Keys and configuration of the lab's SSH: every host may log in to every other as root, by key.

sshd listens on the addresses that a host keeps, never on the service's: a connection to the agent must
not depend on an address that moves.
"""

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from migrate.lab import topology
from migrate.lab.enter import PATH

KEYGEN_DEADLINE_S = 20.0
PID_FILE = "/run/sshd.pid"
#: Directories of the machine's that the hosts must not see: keys and configuration of its own.
HIDDEN = ("/root/.ssh", "/etc/ssh")
#: The default, a post-quantum one, takes 80 of the 220 ms of a login.
QUICK_KEX = "KexAlgorithms curve25519-sha256"


class KeyPair(NamedTuple):
    """An ed25519 key pair in OpenSSH's text forms."""

    private: str
    public: str


def generate(names: Iterable[str], directory: Path) -> dict[str, KeyPair]:
    """Return a new key pair for each of *names*; the files made in *directory* are removed again.

    :raises OSError, subprocess.SubprocessError: ssh-keygen is missing or failed.
    """
    paths = {name: directory / f"key-{name}" for name in names}
    runs = [
        subprocess.Popen(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab-{name}", "-f", str(path)]
        )
        for name, path in paths.items()
    ]
    for run in runs:
        if run.wait(KEYGEN_DEADLINE_S):
            raise subprocess.CalledProcessError(run.returncode, run.args)
    return {name: _take(path) for name, path in paths.items()}


def _take(path: Path) -> KeyPair:
    public = path.with_name(path.name + ".pub")
    pair = KeyPair(path.read_text(), public.read_text())
    path.unlink()
    public.unlink()
    return pair


def known_hosts(host_keys: dict[str, KeyPair]) -> str:
    """Return a known_hosts file with every host's key under all its names and addresses."""
    lines = []
    for host in topology.HOSTS:
        names = dict.fromkeys(word for leg in topology.legs_of(host) for word in (leg.name, *leg.address))
        kind, key = host_keys[host].public.split()[:2]
        lines.append(f"{','.join(names)} {kind} {key}\n")
    return "".join(lines)


def server_config(host: str) -> str:
    """Return sshd_config of *host*: quick logins, no questions, only the addresses that stay."""
    listen = "".join(f"ListenAddress {text}\n" for text in topology.own_addresses(host))
    return f"""{listen}HostKey /etc/ssh/ssh_host_ed25519_key
PidFile {PID_FILE}
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
{QUICK_KEX}
MaxStartups 100
MaxSessions 100
AcceptEnv LANG LC_*
SetEnv PATH={PATH}
Subsystem sftp internal-sftp
"""


CLIENT_CONFIG = f"""Host *
    {QUICK_KEX}
    IdentityFile /root/.ssh/id_ed25519
    IdentitiesOnly yes
    StrictHostKeyChecking yes
    UpdateHostKeys no
    ConnectTimeout 10
"""


def files(host: str, user_key: KeyPair, host_keys: dict[str, KeyPair]) -> dict[str, tuple[int, str]]:
    """Return the files that make SSH work on *host*: path -> (mode, text)."""
    return {
        "/etc/ssh/sshd_config": (0o644, server_config(host)),
        "/etc/ssh/ssh_config": (0o644, CLIENT_CONFIG),
        "/etc/ssh/ssh_host_ed25519_key": (0o600, host_keys[host].private),
        "/etc/ssh/ssh_host_ed25519_key.pub": (0o644, host_keys[host].public),
        "/root/.ssh/authorized_keys": (0o600, user_key.public),
        "/root/.ssh/known_hosts": (0o600, known_hosts(host_keys)),
        "/root/.ssh/id_ed25519": (0o600, user_key.private),
        "/root/.ssh/id_ed25519.pub": (0o644, user_key.public),
    }
