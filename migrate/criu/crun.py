"""Whether this host's crun can dump and restore at all: that of Debian 12 is built without CRIU.

Source: crun's src/crun.c print_version(): the last line names what it is built with.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from migrate import limits

#: Where podman looks, beside the user's PATH (containers.conf(5), "runtimes").
_PLACES = "/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin:/sbin:/bin"


def program() -> str | None:
    """The path of crun; None: there is none."""
    return shutil.which("crun", path=f"{os.environ.get('PATH', '')}:{_PLACES}")


def without_criu(path: str) -> str:
    """A sentence, if the crun at *path* is built without CRIU; else "".

    :raises OSError, subprocess.SubprocessError: it does not say.
    """
    ran = subprocess.run(
        [path, "--version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=limits.VERSION_S,
    )
    words = ran.stdout.split()
    if "+CRIU" in words:
        return ""
    version = " ".join(ran.stdout.splitlines()[:1]) or "crun"
    return (
        f"{path} ({version}) is built without CRIU: it can neither checkpoint nor restore; take another one"
    )
