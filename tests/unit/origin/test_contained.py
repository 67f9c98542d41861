"""What does not go with a container that was named."""

from __future__ import annotations

import pytest

from migrate.errors import Refused
from migrate.origin import contained
from migrate.processes.podman import Podman
from migrate.request import Named, Request


def test_another_switch_is_refused_with_a_container_of_podman(monkeypatch: pytest.MonkeyPatch) -> None:
    found = object.__new__(Podman)
    monkeypatch.setattr(contained, "_found", lambda word: found)
    request = Request(pid=0, host="h", named=Named(container="web"), switch="none")
    with pytest.raises(Refused) as refused:
        contained.resolved(request)
    (reason,) = refused.value.reasons
    assert (reason.code, reason.role) == ("switch-of-podman", "origin") and "--switch none" in reason.text
