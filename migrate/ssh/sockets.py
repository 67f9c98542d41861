"""The socket below an SSH connection: directly, or through a ProxyCommand."""

from __future__ import annotations

import contextlib
import errno
import shlex
import socket
import subprocess
import tempfile
import time
from typing import IO

import paramiko

from migrate import limits
from migrate.errors import TransportError
from migrate.ssh.config import HostConfig
from migrate.ssh.deadline import within

_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
_STDERR_BYTES = 4096


class ProxySocket(socket.socket):
    """Our end of a socket pair; a ProxyCommand has the other as its standard input and output.

    paramiko's own ProxyCommand does not notice the end of the program, and spins.
    """

    _process: subprocess.Popen[bytes] | None = None
    _errors: IO[bytes]

    @classmethod
    def start(cls, command: str) -> ProxySocket:
        """Start *command*, split into words as a shell does; no shell runs it."""
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the socket
        ours, theirs = socket.socketpair()
        with ours, theirs:
            fd = theirs.fileno()
            process = subprocess.Popen(
                shlex.split(command), stdin=fd, stdout=fd, stderr=errors, start_new_session=True
            )
            proxy = cls(fileno=ours.detach())
        proxy._process = process
        proxy._errors = errors
        return proxy

    def said(self) -> list[str]:
        """Return the last lines of the program's standard error."""
        self._errors.seek(0)
        return self._errors.read()[-_STDERR_BYTES:].decode(errors="replace").splitlines()

    def close(self) -> None:
        """Close, and end the program."""
        super().close()
        if self._process is None:
            return
        process, self._process = self._process, None
        process.terminate()
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def open_socket(config: HostConfig) -> socket.socket:
    """Connect to the host of *config*, or start its ProxyCommand.

    :raises TransportError: does not resolve, refuses, cannot be reached, in ``config.timeout_s``.
    """
    if config.proxy_command:
        return _open_proxy(config)
    deadline = time.monotonic() + config.timeout_s
    errors: list[OSError] = []
    for family, address in _resolve(config):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(max(0.1, deadline - time.monotonic()))
            sock.connect(address)
            _tune(sock)
            return sock
        except OSError as error:
            sock.close()
            errors.append(error)
        except BaseException:
            sock.close()
            raise
    raise _unreachable(config, errors)


def addresses(sock: object) -> tuple[str, str]:
    """Return local and remote IP address of *sock*; "" twice if it is not a TCP connection."""
    if isinstance(sock, socket.socket) and sock.family in _FAMILIES.values():
        with contextlib.suppress(OSError):
            return sock.getsockname()[0], sock.getpeername()[0]
    return "", ""


def close_transport(transport: paramiko.Transport) -> None:
    """Close *transport* and its socket, whatever state it is in; its thread ends soon. Does not raise."""
    with contextlib.suppress(Exception):
        transport.close()
    with contextlib.suppress(Exception):
        transport.sock.close()
    # It looks up every 0.1 s; left running, it could die noisily at the end of the program.
    if transport.is_alive():
        transport.join(limits.SSH_CLOSE_S)


def _open_proxy(config: HostConfig) -> ProxySocket:
    try:
        return ProxySocket.start(config.proxy_command)
    except (OSError, ValueError) as error:
        raise TransportError(
            f"the ProxyCommand for {config.name} cannot be started: {error}",
            hint=f"Correct it in the ssh configuration: {config.proxy_command}",
        ) from error


def _resolve(config: HostConfig) -> list[tuple[int, tuple[str, int]]]:
    family = _FAMILIES.get(config.family, socket.AF_UNSPEC)
    try:
        found = within(
            config.timeout_s,
            lambda: socket.getaddrinfo(config.hostname, config.port, family, socket.SOCK_STREAM),
        )
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise TransportError(
            f"the host name {config.hostname} does not resolve: {why}",
            hint="Check the name; give it in /etc/hosts or DNS, or as a Host in ~/.ssh/config.",
        ) from error
    return [(entry[0], entry[4]) for entry in found]  # type: ignore[misc]


def _tune(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _unreachable(config: HostConfig, errors: list[OSError]) -> TransportError:
    """The error that tells most: a refusal rather than a family that has no route."""
    where = f"{config.hostname} port {config.port}"
    refused = [error for error in errors if error.errno == errno.ECONNREFUSED]
    if refused:
        text, hint = (
            "refuses the connection",
            f"Look whether sshd runs there and listens on port {config.port}.",
        )
    elif any(isinstance(error, TimeoutError) for error in errors):
        text = f"does not answer within {config.timeout_s:g} s"
        hint = "Look whether the host is up and no firewall is in the way."
    else:
        text = f"cannot be reached: {errors[-1].strerror or errors[-1]}" if errors else "has no address"
        hint = "Look at the address and the routes to it."
    return TransportError(f"{where} {text}", hint=hint)
