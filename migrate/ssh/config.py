"""What the user's and the system's ssh configuration say about a host, as one plain value."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko

from migrate import limits
from migrate.errors import TransportError, UsageError
from migrate.ssh import host as ssh_host
from migrate.ssh import known_hosts

SYSTEM = Path("/etc/ssh")
DEFAULT_IDENTITIES = ("id_ed25519", "id_ecdsa", "id_rsa")

_MAX_INCLUDE_DEPTH = 16
#: A month; poll() takes no longer times.
_MOST_TIMEOUT_S = 2_000_000.0
_MATCH_ALONE = ("all", "canonical", "final")
_MATCH_BY_VALUE = ("exec", "host", "originalhost", "user", "localuser")
_JUMP = re.compile(r"(.*@)?(\[[^\]]*\]|[^:]*)(?::([0-9]+))?")


@dataclass(frozen=True, slots=True)
class HostKeys:
    """Where the host's key is to be found.

    :ivar files: the known_hosts files; the first one is the user's own.
    :ivar name: the name under which it is looked up in them.
    """

    files: tuple[str, ...]
    name: str


@dataclass(frozen=True, slots=True)
class Algorithms:
    """Names of those that the user prefers, as lists with commas; "" for the default."""

    kex: str
    ciphers: str


@dataclass(frozen=True, slots=True)
class HostConfig:
    """How to reach one host.

    :ivar name: the host as the user wrote it, without the user.
    :ivar identities: private key files, in the order in which they are tried.
    :ivar identities_only: do not try other keys of the ssh agent.
    :ivar proxy_jump: ``[user@]host[:port]``, the nearest first; :func:`split_jump` takes each. Empty for none.
    :ivar family: "any", "inet" or "inet6".
    """

    name: str
    hostname: str
    port: int
    user: str
    identities: tuple[str, ...]
    identities_only: bool
    host_keys: HostKeys
    timeout_s: float
    proxy_command: str
    proxy_jump: tuple[str, ...]
    family: str
    algorithms: Algorithms


def split_jump(text: str) -> tuple[str, int | None]:
    """Split ``[user@]host[:port]`` of a ProxyJump, or such an ssh:// URI; IPv6 addresses in brackets.

    :raises ValueError: it is none, or has characters that no host or user name has.
    """
    found = _JUMP.fullmatch(text.removeprefix("ssh://").rstrip("/"))
    if found is None:
        raise ValueError(f"ProxyJump {text!r} is not [user@]host[:port]")
    host = (found[1] or "") + found[2]
    try:
        ssh_host.split(host)
    except UsageError:
        raise ValueError(f"ProxyJump {text!r} is not [user@]host[:port]") from None
    return host, _port(found[3]) if found[3] else None


def look_up(
    text: str, *, port: int | None = None, identity: str = "", home: Path | None = None
) -> HostConfig:
    """Return how to reach *text*, ``[user@]host``.

    :param port: overrides the configuration's.
    :param identity: a key file to try instead of the configuration's.
    :param home: whose ``.ssh`` counts; None: this user's.
    :raises UsageError: *text* is no host name.
    :raises TransportError: the configuration cannot be read or makes no sense.
    """
    user, name = ssh_host.split(text)
    ssh = (home or Path.home()) / ".ssh"
    try:
        options = _parse(ssh, user, port).lookup(name)
        return _resolve(options, ssh, name, identity)
    except (paramiko.SSHException, OSError, ValueError, KeyError, RuntimeError) as error:
        # Of Path.expanduser() it is a RuntimeError: no such user.
        raise TransportError(
            f"the ssh configuration for {name} makes no sense: {error}",
            hint=f"Correct {ssh / 'config'} or {SYSTEM / 'ssh_config'}; `ssh -G {name}` shows them together.",
        ) from error


def read_known_hosts(config: HostConfig) -> list[known_hosts.Entry]:
    """Return the entries of all known_hosts files of *config*; a file that is not there has none."""
    entries = []
    for file in config.host_keys.files:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            text = Path(file).read_text(encoding="utf-8", errors="replace")
            entries += known_hosts.parse(text.splitlines(), file)
    return entries


def _parse(ssh: Path, user: str, port: int | None) -> paramiko.SSHConfig:
    config = paramiko.SSHConfig()
    # The first value counts, in the tokens of a ProxyCommand too: so the user's own words go first.
    config.parse([*([f"User {user}"] if user else []), *([f"Port {port}"] if port else [])])
    # One by one, since a file begins outside the last Host block of the one before.
    for file in (ssh / "config", SYSTEM / "ssh_config"):
        config.parse(_lines(file, file.parent, 0))
    return config


def _lines(file: Path, base: Path, depth: int) -> Iterator[str]:
    """Yield the lines of *file*, each Include replaced by what it names, which paramiko does not do."""
    if depth > _MAX_INCLUDE_DEPTH:
        raise ValueError(f"{file} includes itself")
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return
    block = "Host *"
    for line in text.splitlines():
        words = line.replace("=", " ", 1).split()
        if not words or words[0].lower() != "include":
            line = _understood(line, words)
            block = line if words and words[0].lower() in ("host", "match") else block
            yield line
            continue
        for pattern in words[1:]:
            for name in sorted(
                glob.glob(  # noqa: PTH207 - the pattern may be absolute
                    str(base / Path(pattern.strip('"')).expanduser())
                )
            ):
                yield from _lines(Path(name), base, depth + 1)
        # A Host line in the included file ends with that file.
        yield block


def _understood(line: str, words: list[str]) -> str:
    """Return *line*; a Match by criteria that paramiko does not know matches no host, instead of all."""
    if not words or words[0].lower() != "match":
        return line
    rest = [word.lower().lstrip("!") for word in shlex.split(" ".join(words[1:]))]
    while rest:
        criterion = rest.pop(0)
        if criterion in _MATCH_BY_VALUE and rest:
            rest.pop(0)
        elif criterion not in _MATCH_ALONE:
            return "Host !*"
    return line


def _resolve(options: Mapping[str, Any], ssh: Path, name: str, identity: str) -> HostConfig:
    hostname = options.get("hostname", name)
    port = _port(options.get("port", "22"))
    configured = options.get("identityfile", [])
    identities = [identity] if identity else configured or [str(ssh / key) for key in DEFAULT_IDENTITIES]
    return HostConfig(
        name=name,
        hostname=hostname,
        port=port,
        user=options.get("user") or pwd.getpwuid(os.getuid()).pw_name,
        identities=tuple(str(_expand(file, ssh)) for file in identities if file != "none"),
        identities_only=options.get("identitiesonly", "no").lower() == "yes",
        host_keys=HostKeys(
            files=tuple(str(_expand(file, ssh)) for file in _known_hosts_files(options, ssh)),
            name=known_hosts.lookup_name(hostname, port, options.get("hostkeyalias", "")),
        ),
        timeout_s=_timeout_s(options.get("connecttimeout", "none")),
        proxy_command=options.get("proxycommand") or "",
        proxy_jump=_jumps(options.get("proxyjump") or "none"),
        family=options.get("addressfamily", "any").lower(),
        algorithms=Algorithms(kex=options.get("kexalgorithms", ""), ciphers=options.get("ciphers", "")),
    )


def _jumps(text: str) -> tuple[str, ...]:
    jumps = () if text.lower() == "none" else tuple(text.replace(" ", "").split(","))
    for jump in jumps:
        split_jump(jump)  # refused here, where it can be said which file is to be corrected
    return jumps


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ValueError(f"Port {text!r} is not a number from 1 to 65535")
    return int(text)


def _known_hosts_files(options: Mapping[str, Any], ssh: Path) -> list[str]:
    user = options.get("userknownhostsfile", f"{ssh / 'known_hosts'} {ssh / 'known_hosts2'}")
    system = options.get(
        "globalknownhostsfile", f"{SYSTEM / 'ssh_known_hosts'} {SYSTEM / 'ssh_known_hosts2'}"
    )
    return [word.strip('"') for word in f"{user} {system}".split() if word.lower() != "none"]


def _expand(file: str, ssh: Path) -> Path:
    home = ssh.parent
    file = file.replace("%d", str(home))
    return home / file[2:] if file.startswith("~/") else Path(file)


def _timeout_s(text: str) -> float:
    if text.lower() in ("none", "0"):
        return limits.CONNECT_S
    seconds = float(text)
    if not 0 < seconds <= _MOST_TIMEOUT_S:  # nor is it "nan"
        raise ValueError(f"ConnectTimeout {text!r} is not a number of seconds")
    return seconds
