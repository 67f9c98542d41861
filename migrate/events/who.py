"""Who has asked for something: the user of this process, and who had logged in before becoming root."""

from __future__ import annotations

import contextlib
import os
import pwd
from pathlib import Path
from typing import Any

#: Nobody has logged in. Source: man pam_loginuid(8); fs/proc/base.c proc_loginuid_read().
_NOBODY = (1 << 32) - 1


def asked() -> dict[str, Any]:
    """Names and numbers, as far as they are known."""
    found: dict[str, Any] = {"uid": os.getuid(), "user": _name(os.getuid())}
    with contextlib.suppress(OSError, ValueError):
        if (login := int(Path("/proc/self/loginuid").read_text())) != _NOBODY:
            found["login"] = _name(login)
    if sudo := os.environ.get("SUDO_USER"):
        found["sudo"] = sudo
    return found


def in_words(found: dict[str, Any]) -> str:
    """It for a line, e.g. "root (alice)"."""
    before = found.get("sudo") or found.get("login")
    return f"{found['user']} ({before})" if before and before != found["user"] else str(found["user"])


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
