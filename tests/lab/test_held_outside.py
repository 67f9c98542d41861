"""A process that stays holds what the server holds: refused while it does, and moved when it has ended."""

from __future__ import annotations

import re

from bad_input_bench import InputBench


def test_a_stranger_writes_to_a_pipe_of_the_server(bench: InputBench) -> None:
    """It was killed by SIGPIPE when the server moved, and what it had written was lost."""
    with bench.server("stranger") as server:
        found = bench.refused(server, "--check")
        assert found.codes == {("pipe-outside", "origin")}
        stranger = re.findall(r"\(PID (\d+)\)", found.report["reasons"][0]["text"])[-1]
        assert int(stranger) != server.pid
        bench.origin.exec(["kill", "-0", stranger])
        bench.origin.exec(["kill", "-9", stranger])
        bench.moved(server)
