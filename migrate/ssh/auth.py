"""Authentication by key: which keys are tried, in which order, and what became of each."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import paramiko
from paramiko.ssh_exception import BadAuthenticationType

from migrate import limits
from migrate.errors import TransportError
from migrate.ssh.config import HostConfig
from migrate.ssh.deadline import within


def authenticate(transport: paramiko.Transport, config: HostConfig) -> None:
    """Log in as ``config.user`` with the first key that is accepted; asks nobody for a password.

    :raises TransportError: none was; the details tell what became of each. The transport is of no use then.
    """
    tried: list[str] = []
    agent = _ssh_agent()
    try:
        for label, key in _candidates(config, agent.get_keys() if agent else (), tried):
            if _accepted(transport, config.user, label, key, tried):
                return
            if not transport.is_active():
                tried.append("the server closed the connection: too many keys tried?")
                break
    finally:
        if agent is not None:
            agent.close()
    raise _refused(config, tried)


def _accepted(
    transport: paramiko.Transport, user: str, label: str, key: paramiko.PKey, tried: list[str]
) -> bool:
    try:
        missing = transport.auth_publickey(user, key)
    except BadAuthenticationType as error:
        tried.append(f"{label}: the server takes no keys, only {', '.join(error.allowed_types)}")
    except paramiko.AuthenticationException as error:
        tried.append(f"{label}: {'no answer' if 'timeout' in str(error) else 'refused'}")
    except (paramiko.SSHException, EOFError, OSError) as error:
        tried.append(f"{label}: {error}")
    else:
        if not missing:
            return True
        tried.append(f"{label}: accepted, but the server also wants {' or '.join(missing)}")
    return False


def _candidates(
    config: HostConfig, held: Iterable[paramiko.AgentKey], tried: list[str]
) -> Iterator[tuple[str, paramiko.PKey]]:
    """Yield keys with their names: of the configured files (read, or held by the agent), then the agent's."""
    agent_keys = {bytes(key): key for key in held}
    for file in config.identities:
        public = _public_blob(file)
        if public in agent_keys:
            yield f"{file} (in the ssh agent)", agent_keys.pop(public)
        elif (key := _load(file, tried)) is not None:
            agent_keys.pop(bytes(key), None)
            yield file, key
    if not config.identities_only:
        for key in agent_keys.values():
            yield f"{key.get_name()} {key.fingerprint} of the ssh agent", key


def _public_blob(file: str) -> bytes:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return paramiko.pkey.PublicBlob.from_file(f"{file}.pub").key_blob
    return b""


def _load(file: str, tried: list[str]) -> paramiko.PKey | None:
    """Read a private key, or note why it cannot be used; a file that is not there is not worth a note."""
    try:
        status = Path(file).stat()
        # As ssh does: a key that others can read is no secret.
        if status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o077:
            tried.append(f"{file}: not used, others may read it: `chmod 600 {file}`")
            return None
        return paramiko.PKey.from_path(file)
    except FileNotFoundError:
        return None
    except (paramiko.PasswordRequiredException, TypeError):
        # cryptography says TypeError where a password is missing.
        tried.append(f"{file}: needs a passphrase: `ssh-add {file}` first")
    except (paramiko.SSHException, paramiko.pkey.UnknownKeyType, OSError, ValueError) as error:
        tried.append(f"{file}: cannot be used: {error}")
    return None


def _ssh_agent() -> paramiko.Agent | None:
    with contextlib.suppress(paramiko.SSHException, OSError, TimeoutError):
        return within(limits.SSH_AGENT_S, paramiko.Agent)
    return None


def _refused(config: HostConfig, tried: list[str]) -> TransportError:
    files = ", ".join(config.identities)
    details = tried or [f"there is no key to try: none of {files}, none in the ssh agent"]
    return TransportError(
        f"{config.name} refused to log in {config.user}: {'; '.join(details)}",
        hint=f"Make `ssh {config.user}@{config.name}` work without a password: add a public key to "
        f"~{config.user}/.ssh/authorized_keys there, or name another one with --identity.",
        details=details,
    )
