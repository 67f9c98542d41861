"""Is that the host we know? The answer, with what to do when it is not."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Sequence

import paramiko

from migrate.errors import TransportError
from migrate.ssh import known_hosts
from migrate.ssh.config import HostConfig
from migrate.ssh.known_hosts import Entry, Verdict

# A key of this type is used with newer signatures.
_RSA_ALGORITHMS = ["rsa-sha2-512", "rsa-sha2-256"]


def algorithms(entries: Sequence[Entry], key_name: str) -> list[str]:
    """Return the host key algorithms by which we can recognise the host; to be negotiated first."""
    names = []
    for kind in known_hosts.kinds(entries, key_name):
        names += _RSA_ALGORITHMS if kind == "ssh-rsa" else [kind]
    return names


def verify(entries: Sequence[Entry], config: HostConfig, key: paramiko.PKey) -> None:
    """Accept *key* as that of the host of *config*.

    :raises TransportError: it is unknown, revoked, or not the known one.
    """
    verdict, about = known_hosts.judge(entries, config.host_keys.name, key.get_name(), bytes(key))
    shown = f"{key.get_name()} {key.fingerprint}"
    if verdict is Verdict.UNKNOWN:
        raise _unknown(config, key, shown, about)
    places = ", ".join(entry.place for entry in about)
    if verdict is Verdict.REVOKED:
        raise TransportError(
            f"the host key of {config.host_keys.name} is revoked: it shows {shown}, revoked in {places}",
            hint="Do not use this host until its administrator has given it a new key.",
        )
    if verdict is Verdict.CHANGED:
        raise _changed(config, shown, about, places)


def _unknown(config: HostConfig, key: paramiko.PKey, shown: str, about: Sequence[Entry]) -> TransportError:
    others = f"; known there: {', '.join(entry.kind for entry in about)}" if about else ""
    return TransportError(
        f"the host key of {config.host_keys.name} is unknown: it shows {shown}{others}",
        hint=f"Compare that fingerprint with the host's own (`ssh-keygen -lf "
        f"/etc/ssh/ssh_host_{_short(key)}_key.pub` there). If it is the same: `{_add_command(config, key)}`.",
    )


def _changed(config: HostConfig, shown: str, about: Sequence[Entry], places: str) -> TransportError:
    file = about[0].place.rpartition(":")[0]
    return TransportError(
        f"the host key of {config.host_keys.name} has changed: it shows {shown}, {places} has another one",
        hint="Somebody may be posing as that host, or it was installed anew: ask who runs it. If the new "
        f"key is right: `ssh-keygen -R {shlex.quote(config.host_keys.name)} -f {shlex.quote(file)}`, then add it.",
        details=[f"{places} expects: {entry.kind} {_fingerprint(entry)}" for entry in about],
    )


def _add_command(config: HostConfig, key: paramiko.PKey) -> str:
    expected = known_hosts.lookup_name(config.hostname, config.port)
    if config.proxy_command or config.proxy_jump or expected != config.host_keys.name:
        return f"ssh {shlex.quote(config.name)}"
    port = "" if config.port == 22 else f"-p {config.port} "
    file = shlex.quote(config.host_keys.files[0]) if config.host_keys.files else "~/.ssh/known_hosts"
    return f"ssh-keyscan -t {_short(key)} {port}{shlex.quote(config.hostname)} >> {file}"


def _short(key: paramiko.PKey) -> str:
    return key.get_name().removeprefix("ssh-").partition("-")[0]


def _fingerprint(entry: Entry) -> str:
    """As `ssh-keygen -l` shows it: of the bytes, whatever key they are. A file may hold anything."""
    return f"SHA256:{base64.b64encode(hashlib.sha256(entry.blob).digest()).decode().rstrip('=')}"
