"""The destination looks at the images' unix sockets before anything is built of them."""

from __future__ import annotations

import pytest
from destination_fakes import World, world

from migrate.criu import unix_paths
from migrate.errors import Taken

__all__ = ["world"]


def test_nothing_is_built_where_a_socket_would_be_taken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(unix_paths, "in_use", lambda binds: asked.append(binds) or ["/run/svc.sock"])
    with pytest.raises(Taken, match=r"/run/svc\.sock"):
        world.run(until="restore")
    assert asked and "+sockets" in world.calls and "worker.restore" not in world.calls
