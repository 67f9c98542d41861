"""The host as the user writes it. Pure; separate, so that wrong arguments are refused without loading SSH."""

from __future__ import annotations

import re

from migrate.errors import UsageError

# Nothing that a shell, ssh, or the tokens of a ProxyCommand could take for something else than a name.
_HOST = re.compile(r"[A-Za-z0-9_.:][A-Za-z0-9_.:%-]*")
_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@$+-]*")


def split(text: str) -> tuple[str, str]:
    """Split ``[user@]host`` and return user ("" for none) and host; an IPv6 address may be in brackets.

    :raises UsageError: either is empty or holds characters that no host or user name has.
    """
    user, at, host = text.rpartition("@")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not _HOST.fullmatch(host) or (at and not _USER.fullmatch(user)):
        raise UsageError(
            f"HOST is a name, an address or user@name, not {text!r}",
            hint="See `migrate --help`.",
        )
    return user, host
