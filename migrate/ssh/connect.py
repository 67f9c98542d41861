"""SSH by paramiko: connect, verify the host key, log in by key, start the agent, a byte stream to it.

Nothing is asked for and nothing is added to known_hosts: what `ssh -o BatchMode=yes -o
StrictHostKeyChecking=yes` refuses is refused here, with the remedy.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
from paramiko.kex_curve25519 import KexCurve25519

from migrate import limits
from migrate.errors import MigrateError, TransportError
from migrate.ssh import auth, host_key, sockets
from migrate.ssh import config as ssh_config
from migrate.ssh.agent import PHASE, Started
from migrate.ssh.agent_stream import AgentStream
from migrate.ssh.config import HostConfig
from migrate.ssh.deadline import within

# What the other side may send before we have read it; with paramiko's default every read needs an answer.
_WINDOW_BYTES = 16 << 20
_MAX_JUMPS = 8


class _Transport(paramiko.Transport):
    """With the standard's name of the key exchange that paramiko knows by its older name only (RFC 8731)."""

    _kex_info = {**paramiko.Transport._kex_info, "curve25519-sha256": KexCurve25519}  # type: ignore[attr-defined]
    _preferred_kex = ("curve25519-sha256", *paramiko.Transport._preferred_kex)  # type: ignore[attr-defined]
    # AES-GCM first: it needs no separate MAC.
    _preferred_ciphers = (
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        *(name for name in paramiko.Transport._preferred_ciphers if name.endswith("-ctr")),  # type: ignore[attr-defined]
    )


class Connection:
    """A host to which we are logged in.

    :ivar config: how it was reached.
    :ivar local_address: our address of the TCP connection, "" behind a proxy.
    :ivar peer_address: the host's, "" behind a proxy.
    """

    def __init__(self, transport: paramiko.Transport, config: HostConfig, via: Connection | None) -> None:
        self._transport = transport
        self._via = via
        self._agents: list[AgentStream] = []
        self.config = config
        self.local_address, self.peer_address = sockets.addresses(transport.sock)

    def start_agent(self, agent: str) -> AgentStream:
        """Start the program *agent* there as root; return the stream to its standard input and output.

        A user other than root needs ``sudo -n`` to work there. That the program is missing shows only when
        its stream is read: see :meth:`migrate.ssh.agent_stream.AgentStream.explain`.

        :param agent: a name or path; it is quoted, so that it stays one word in the shell there.
        :raises TransportError: the host starts nothing; the connection is as before.
        """
        started = Started(self.config.name, self.config.user, agent)
        timeout_s = self.config.timeout_s
        try:
            channel = self._transport.open_session(window_size=_WINDOW_BYTES, timeout=timeout_s)
            # paramiko waits for the answer for ever.
            within(timeout_s, lambda: channel.exec_command(started.command))
        except (paramiko.SSHException, OSError, EOFError) as error:
            text = f"{self.config.name} starts no program: {error or type(error).__name__}"
            hint = f"Look whether `ssh {self.config.name} true` works."
            raise TransportError(text, hint=hint) from error
        self._agents.append(AgentStream(self._transport, channel, started))
        return self._agents[-1]

    def open_socket(self, host: str, port: int, timeout_s: float) -> paramiko.Channel:
        """Connect from that host to *port* of *host*."""
        try:
            return self._transport.open_channel(
                "direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=timeout_s
            )
        except (paramiko.SSHException, OSError, EOFError) as error:
            text = f"{self.config.name} cannot connect to {host} port {port}: {error}"
            hint = f"Look at the ProxyJump for that host, and what `ssh {self.config.name}` can reach."
            raise TransportError(text, hint=hint) from error

    def close(self) -> None:
        """Close the connection, with all that runs over it. Does not raise, may be called twice."""
        for agent in self._agents:
            agent.close()
        sockets.close_transport(self._transport)
        if self._via is not None:
            self._via.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(
    host: str,
    *,
    port: int | None = None,
    identity: str = "",
    role: str = "destination",
    home: Path | None = None,
) -> Connection:
    """Connect to *host* and log in, as the user's ssh configuration says.

    :param host: ``[user@]host``: a name of the configuration, a host name or an address.
    :param port: overrides the configuration's.
    :param identity: private key file to try instead of the configuration's.
    :param role: what the host is here, for errors.
    :param home: whose ``.ssh`` counts; None: this user's.
    :raises TransportError: with the remedy as hint; nothing is left open.
    :raises UsageError: *host* is no host name.
    """
    _silence()
    with _errors_of(role):
        config = ssh_config.look_up(host, port=port, identity=identity, home=home)
        return _connect(config, home, via=None, depth=0)


@contextlib.contextmanager
def _errors_of(role: str) -> Iterator[None]:
    """Say *role* in every error: what is called here does not know which host it speaks of."""
    try:
        yield
    except MigrateError as error:
        error.stamp(PHASE, role)
        raise


def _connect(config: HostConfig, home: Path | None, via: Connection | None, depth: int) -> Connection:
    if via is None and config.proxy_jump:
        via = _jump(config, home, depth)
    transport: paramiko.Transport | None = None
    try:
        sock = sockets.open_socket(config) if via is None else _through(via, config)
        transport = _handshake(sock, config)
        auth.authenticate(transport, config)
        transport.set_keepalive(int(limits.KEEPALIVE_S))
        return Connection(transport, config, via)
    except BaseException:
        if transport is not None:
            sockets.close_transport(transport)
        if via is not None:
            via.close()
        raise


def _jump(config: HostConfig, home: Path | None, depth: int) -> Connection:
    if depth >= _MAX_JUMPS:
        raise TransportError(
            f"the way to {config.name} has no end: its ProxyJump leads back to itself",
            hint="Correct the ProxyJump lines in the ssh configuration.",
        )
    via: Connection | None = None
    for text in config.proxy_jump:
        host, port = ssh_config.split_jump(text)
        via = _connect(ssh_config.look_up(host, port=port, home=home), home, via, depth + 1)
    assert via is not None
    return via


def _through(via: Connection, config: HostConfig) -> paramiko.Channel:
    return via.open_socket(config.hostname, config.port, config.timeout_s)


def _handshake(sock: socket.socket | paramiko.Channel, config: HostConfig) -> paramiko.Transport:
    """Negotiate, and verify the host's key.

    :raises TransportError: it is no SSH server, or not the host that is known; *sock* is closed.
    """
    entries = ssh_config.read_known_hosts(config)
    transport = _Transport(sock)
    try:
        _prefer(transport, config, host_key.algorithms(entries, config.host_keys.name))
        transport.banner_timeout = transport.handshake_timeout = config.timeout_s
        transport.start_client(timeout=config.timeout_s)
        # start_client() returns when the time is over, too.
        if not transport.initial_kex_done:
            raise paramiko.SSHException(f"no key exchange within {config.timeout_s:g} s")
        host_key.verify(entries, config, transport.get_remote_server_key())
        return transport
    except (paramiko.SSHException, OSError, EOFError) as error:
        sockets.close_transport(transport)
        raise _no_ssh(config, error, sock) from error
    except BaseException:
        sockets.close_transport(transport)
        raise


def _prefer(transport: paramiko.Transport, config: HostConfig, host_keys: list[str]) -> None:
    """Negotiate as the configuration says, with the known types of host key first."""
    options: Any = transport.get_security_options()
    known = [name for name in host_keys if name in options.key_types]
    options.key_types = [*known, *(name for name in options.key_types if name not in known)]
    for name, wanted in (("kex", config.algorithms.kex), ("ciphers", config.algorithms.ciphers)):
        # Lists that begin with + - ^ change OpenSSH's defaults, which are not ours.
        chosen = [word for word in wanted.split(",") if word in getattr(options, name)]
        if chosen:
            setattr(options, name, chosen)


def _no_ssh(config: HostConfig, error: Exception, sock: object) -> TransportError:
    said = sock.said() if isinstance(sock, sockets.ProxySocket) else []
    text = f"{config.hostname} port {config.port} did not complete an SSH handshake: "
    return TransportError(
        text + (said[-1] if said else str(error) or type(error).__name__),
        hint=f"Look whether an sshd listens there and what `ssh -v {config.name}` says.",
        details=said,
    )


def _silence() -> None:
    """Keep paramiko from writing to standard error: its errors arrive as exceptions."""
    logger = logging.getLogger("paramiko")
    if not any(isinstance(handler, logging.NullHandler) for handler in logger.handlers):
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        threading.excepthook = _quiet_excepthook(threading.excepthook)


def _quiet_excepthook(before: Any) -> Any:
    def hook(args: threading.ExceptHookArgs) -> None:
        if not isinstance(args.thread, paramiko.Transport):
            before(args)

    return hook
