"""The way by paramiko: no other program is needed, and every error is a typed one."""

from __future__ import annotations

from pathlib import Path

from migrate.journal.reach import Reach
from migrate.ssh import agent_stream, connect
from migrate.transport import AgentStream


class ByParamiko:
    """See :class:`migrate.transport.Transport`."""

    def open(self, reach: Reach) -> AgentStream:
        """See :class:`migrate.transport.Transport`."""
        home = Path(reach.home) if reach.home else None
        connection = connect.connect(reach.host, port=reach.port, identity=reach.identity, home=home)
        try:
            return _Opened(connection, connection.start_agent(reach.agent))
        except BaseException:
            connection.close()
            raise


class _Opened:
    """An agent's stream with the connection, and those of jump hosts, that serve nothing else."""

    def __init__(self, connection: connect.Connection, stream: agent_stream.AgentStream) -> None:
        self._connection, self._stream = connection, stream
        self.read, self.write, self.end = stream.read, stream.write, stream.end
        self.explain, self.close = stream.explain, connection.close

    @property
    def ends(self) -> tuple[str, str]:
        return self._connection.local_address, self._connection.peer_address

    @property
    def sudo(self) -> bool:
        return self._connection.config.user != "root"
