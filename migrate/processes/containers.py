"""The containers that run on this host, as podman, runc and crun list them: the PID of each, and how it is named.

Source: man podman-ps(1), runc-list(8), crun(1).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from migrate.processes import oci, podman


def running() -> dict[int, str]:
    """The PID of the first process of each -> ``NAME@RUNTIME``, as ``migrate --container`` takes it.

    A runtime that does not answer has none.
    """
    # Podman's are runc's or crun's as well, under names that nobody knows.
    return {**dict(_of_runtimes()), **dict(_of_podman())}


def _of_runtimes() -> Iterator[tuple[int, str]]:
    for runtime in oci.known():
        for one in _rows(oci.said(runtime, "list", "--format", "json")):
            if one.get("status") in oci.RUNS and isinstance(one.get("pid"), int):
                yield one["pid"], f"{one.get('id')}@{runtime}"


def _of_podman() -> Iterator[tuple[int, str]]:
    for one in _rows(podman.said("ps", "--format", "json")):
        if isinstance(one.get("Pid"), int) and (names := one.get("Names")):
            yield one["Pid"], f"{names[0]}@{podman.NAME}"


def _rows(text: str) -> list[dict[str, Any]]:
    with contextlib.suppress(ValueError):
        found = json.loads(text or "[]")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return []
