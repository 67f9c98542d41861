"""What the ssh program says when it fails, as errors with a remedy: its status, and its well-known sentences. Pure.

Source: the messages of OpenSSH 9.2: sshconnect.c, sshconnect2.c, packet.c sshpkt_vfatal(), clientloop.c, mux.c. A
failure of its own has status 255; any other status is the agent's, or that of the shell there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from migrate.errors import TransportError
from migrate.ssh.agent import Started, last

#: Of a failure of ssh itself; also when the agent was killed by a signal.
_OWN_FAILURE = 255


@dataclass(frozen=True, slots=True)
class _Sentence:
    """What one of them means.

    :ivar pattern: found in one line.
    :ivar text: what is wrong; ``{host}`` and ``{user}`` are those we wanted, ``{0}``, ``{1}`` the groups found.
    :ivar hint: what to do.
    """

    pattern: str
    text: str
    hint: str


_LOOK = "Look whether the host is up and the network between the two works."
#: In this order: the first that is found counts. What is said in the end is often only what follows from it.
_SENTENCES = (
    _Sentence(
        r"Could not resolve hostname (\S+): (.*)",
        "the host name {0} does not resolve: {1}",
        "Check the name; give it in /etc/hosts or DNS, or as a Host in ~/.ssh/config.",
    ),
    _Sentence(
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the host key of {host} has changed: it shows another one than known_hosts has",
        "Somebody may be posing as that host, or it was installed anew: ask who runs it. If the new key is right:"
        " `ssh-keygen -R {quoted}`, then `ssh {quoted}` and compare the fingerprint.",
    ),
    _Sentence(
        r"REVOKED HOST KEY|host key .* is revoked|marked as revoked",
        "the host key of {host} is revoked",
        "Do not use this host until its administrator has given it a new key.",
    ),
    _Sentence(
        r"No (\S+) host key is known for (\S+)|Host key verification failed",
        "the host key of {host}, or of a jump host on the way, is unknown",
        "`ssh {quoted}` shows its fingerprint: compare that with the host's own, then say yes to it.",
    ),
    _Sentence(
        r"(\S+): Permission denied \((.*)\)|Too many authentication failures",
        "{host} refused to log in {user}",
        "Make `ssh -o BatchMode=yes {quoted}` work without a question: add a public key to authorized_keys there,"
        " load it into the ssh agent, or name another one with --identity.",
    ),
    _Sentence(
        r"[Bb]ad configuration option|[Bb]ad owner or permissions on|terminating, \d+ bad configuration options",
        "the ssh configuration makes no sense",
        "Correct it; `ssh -G {quoted}` shows what it says for this host.",
    ),
    _Sentence(
        r"connect to host (\S+) port (\d+): Connection refused",
        "{0} port {1} refuses the connection",
        "Look whether sshd runs there and listens on port {1}.",
    ),
    _Sentence(
        r"connect to host (\S+) port (\d+): (?:Connection|Operation) timed out",
        "{0} port {1} does not answer in time",
        "Look whether the host is up and no firewall is in the way.",
    ),
    _Sentence(
        r"timed out during banner exchange|Connection to \S+ port \d+ timed out",
        "{host} did not complete an SSH handshake in time",
        "Look whether an sshd listens there and what `ssh -v {quoted}` says.",
    ),
    _Sentence(
        r"connect to host (\S+) port (\d+): (.*)",
        "{0} port {1} cannot be reached: {2}",
        "Look at the address and the routes to it.",
    ),
    _Sentence(
        r"open failed: (.*)|stdio forwarding failed",
        "the jump host cannot connect to {host}",
        "Look at the ProxyJump for that host, and what can be reached from there.",
    ),
    _Sentence(
        r"Unable to negotiate with \S+ port \d+: (.*)",
        "{host} did not complete an SSH handshake: {0}",
        "Look at the algorithms that both sides allow: `ssh -v {quoted}`.",
    ),
    _Sentence(
        r"kex_exchange_identification: (.*)|banner exchange: (.*)|Bad packet length|banner line contains invalid",
        "{host} did not complete an SSH handshake",
        "Look whether an sshd listens there and what `ssh -v {quoted}` says.",
    ),
    _Sentence(
        r"[Tt]imeout, server (\S+) not responding",
        "the SSH connection to {host} broke: it did not answer any more",
        _LOOK,
    ),
    _Sentence(
        r"client_loop: .*|Connection (?:to \S+ )?(?:closed|reset) by .*|Shared connection to \S+ closed"
        r"|mux_client\S*: .*|Broken pipe|[Cc]onnection reset",
        "the SSH connection to {host} broke",
        _LOOK,
    ),
)


def explained(started: Started, status: int, said: Sequence[str]) -> TransportError:
    """Why an ssh program that ended with *status*, negative for a signal, has ended.

    :param said: the last lines of its standard error, which it shares with the agent's.
    """
    if status < 0:
        text = f"the ssh program was killed by signal {-status}"
        return started.error(text, "Look for who killed it, and try again.", said)
    if status != _OWN_FAILURE:
        return started.exited(status, said)
    for sentence in _SENTENCES:
        for line in said:
            if found := re.search(sentence.pattern, line):
                return _error(sentence, found, line, started, said)
    if not said:
        return started.killed(said)
    hint = f"Look what `ssh -v {shlex.quote(started.host)}` says."
    return started.error(f"ssh to {started.host} failed: {last(said)}", hint, said)


def _error(
    sentence: _Sentence, found: re.Match[str], line: str, started: Started, said: Sequence[str]
) -> TransportError:
    groups = [group or "" for group in found.groups()]
    names = {"host": started.host, "user": started.user, "quoted": shlex.quote(started.host)}
    text, hint = sentence.text.format(*groups, **names), sentence.hint.format(*groups, **names)
    return started.error(f"{text} ({line.strip()})" if "{0}" not in sentence.text else text, hint, said)
