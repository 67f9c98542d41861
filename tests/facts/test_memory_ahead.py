"""Real processes, real CRIU: memory comes back whole in each way; sent in levels, little of it is late."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from migrate import memory
from migrate.criu import worker
from migrate.files.images import Receiver, Sender
from migrate.link.payloads import Piece
from migrate.memory import sources
from migrate.memory.page_server import PageServer
from migrate.memory.pagemap import PAGE_BYTES, PE_PARENT, PE_PRESENT, Pagemap
from migrate.memory.rounds import Ahead
from migrate.testing import memories
from tcpcp.criu import tree

KEEPER = Path(__file__).parents[1] / "workloads" / "memory_keeper.py"
MEGABYTES = 200
PR_SET_CHILD_SUBREAPER = 36
TIMEOUT_S = 60


class Keeper:
    """The workload, and what it says on its FIFO."""

    def __init__(self, directory: Path, megabytes: int = MEGABYTES) -> None:
        path = directory / "fifo"
        os.mkfifo(path)
        self._fifo = os.open(path, os.O_RDWR)
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        self.pid = subprocess.Popen(
            [sys.executable, str(KEEPER), str(megabytes), str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ).pid
        self.digests()
        self.pids = tree.tasks(self.pid)

    def digests(self) -> dict[int, str]:
        """What both processes say next."""
        text = b""
        while text.count(b"\n") < 2:
            ready, _, _ = select.select([self._fifo], [], [], TIMEOUT_S)
            assert ready, "the keeper is silent"
            text += os.read(self._fifo, 4096)
        return {int(pid): digest for pid, digest in (line.split() for line in text.decode().splitlines())}

    def ask(self, number: signal.Signals) -> dict[int, str]:
        for pid in self.pids:
            os.kill(pid, number)
        answers = self.digests()
        assert set(answers) == set(self.pids)
        return answers

    def reap(self) -> None:
        for pid in reversed(self.pids):
            os.waitpid(pid, 0)

    def close(self) -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0)  # what others start is none of ours
        os.close(self._fifo)
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                continue


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    keeper = Keeper(tmp_path)
    yield keeper
    keeper.close()


def unheard(_: str) -> None:
    """Nobody sends what grows."""


def dump(pid: int, images: Path, ahead: Ahead, grew: Callable[[str], None] = unheard) -> PageServer:
    """Have CRIU dump and kill the tree; its pages go through our page server."""
    server = PageServer(images, ahead, grew)
    fd = server.client.fileno()
    command = ["dump", "-t", str(pid), "--page-server", "--ps-socket", str(fd), "--network-lock", "skip"]
    process = _criu(command, images, [fd])
    server.start()
    assert process.wait(TIMEOUT_S) == 0, (images / "log").read_text()[-2000:]
    server.finish(TIMEOUT_S)
    server.close()
    return server


def dumped_bytes(images: Path) -> int:
    """Memory that CRIU has dumped, wherever its pages are."""
    maps = [Pagemap.from_bytes(path.read_bytes()) for path in images.glob("pagemap-*.img")]
    runs = [run for one in maps for run in one.runs]
    return PAGE_BYTES * sum(run.pages for run in runs if run.flags & (PE_PRESENT | PE_PARENT))


def restore(images: Path) -> None:
    assert _criu(["restore", "-d"], images, []).wait(TIMEOUT_S) == 0, (images / "log").read_text()[-2000:]


def _criu(command: list[str], images: Path, fds: list[int]) -> subprocess.Popen[bytes]:
    program = worker.program()
    assert program is not None
    return subprocess.Popen([program, *command, "-D", str(images), "-o", "log"], pass_fds=fds)


def carry(images: Path, sender: Sender, to: Path) -> None:
    manifest = sender.finish("0" * 12)
    receiver = Receiver(to)
    for chunk in CARRIED:
        receiver.take(chunk)
    receiver.verify(manifest)


CARRIED: list[Piece] = []


@pytest.fixture
def sender(images: Path) -> Iterator[Sender]:
    CARRIED.clear()
    sender = Sender(images, CARRIED.append)
    sender.start_ahead()
    yield sender
    sender.stop()


@pytest.mark.parametrize("check", memories.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", memory.OWN)
def test_it_is_a_way_to_send_memory(
    tmp_path: Path, images: Path, sender: Sender, kind: str, check: Callable[[memories.Case], None]
) -> None:
    keeper, arrived = Keeper(tmp_path, 20), tmp_path / "arrived"
    arrived.mkdir()

    def dumped(descriptor: int | None, started: Callable[[], None]) -> None:
        to = [] if descriptor is None else ["--page-server", "--ps-socket", str(descriptor)]
        command = ["dump", "-t", str(keeper.pid), *to, "--network-lock", "skip"]
        process = _criu(command, images, [] if descriptor is None else [descriptor])
        started()
        assert process.wait(TIMEOUT_S) == 0, (images / "log").read_text()[-2000:]
        keeper.reap()

    def carried() -> None:
        carry(images, sender, arrived)
        restore(arrived)

    case = memories.Case(
        kind,
        images,
        lambda: keeper.pids,
        lambda: keeper.ask(signal.SIGUSR1),
        lambda: keeper.ask(signal.SIGUSR2),
        dumped,
        carried,
        lambda: sender.drain(TIMEOUT_S),
        sender.grew,
    )
    try:
        check(case)
    finally:
        keeper.close()


@pytest.mark.parametrize("rounds", [1, 3])
def test_levels_restore_the_memory_as_it_was(
    keeper: Keeper, images: Path, sender: Sender, rounds: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ahead = Ahead(images, lambda: keeper.pids, sender.grew)
    for _ in range(rounds):
        keeper.ask(signal.SIGUSR1)
        ahead.round()
        sender.drain(TIMEOUT_S)
    before = keeper.ask(signal.SIGUSR1)
    server = dump(keeper.pid, images, ahead, sender.grew)
    keeper.reap()
    destination = tmp_path_factory.mktemp("destination")
    carry(images, sender, destination)

    assert dumped_bytes(images) > 2 * (MEGABYTES << 20)
    assert server.written_bytes < 20 << 20
    assert ahead.written_bytes < dumped_bytes(images) + (20 << 20)
    assert (destination / "/".join(["parent"] * rounds)).is_dir()
    restore(destination)
    assert keeper.ask(signal.SIGUSR2) == before


def test_without_a_round_the_page_server_alone_carries_the_memory(keeper: Keeper, images: Path) -> None:
    before = keeper.ask(signal.SIGUSR2)
    server = dump(keeper.pid, images, Ahead(images, list, unheard))
    keeper.reap()
    assert server.written_bytes == dumped_bytes(images)
    restore(images)
    assert keeper.ask(signal.SIGUSR2) == before


def test_criu_lets_the_tree_run_when_the_pages_cannot_be_written(keeper: Keeper, images: Path) -> None:
    before = keeper.ask(signal.SIGUSR2)
    server = PageServer(images / "missing", Ahead(images, list, unheard), unheard)
    fd = server.client.fileno()
    command = ["dump", "-t", str(keeper.pid), "--page-server", "--ps-socket", str(fd)]
    process = _criu([*command, "--network-lock", "skip"], images, [fd])
    server.start()
    assert process.wait(TIMEOUT_S) != 0
    with pytest.raises(Exception, match="cannot write the pages"):
        server.finish(TIMEOUT_S)
    server.close()
    assert keeper.ask(signal.SIGUSR2) == before


def test_a_task_that_ends_between_rounds_is_no_error(keeper: Keeper, images: Path) -> None:
    ahead = Ahead(images, lambda: [*keeper.pids, 1 << 22], unheard)
    ahead.round()
    os.kill(keeper.pids[1], signal.SIGKILL)
    ahead.round()
    assert ahead.written_bytes > 2 * (MEGABYTES << 20)


def test_pagemap_and_the_scan_agree(keeper: Keeper) -> None:
    """Kernels before 6.7 have no PAGEMAP_SCAN; both must find the same pages."""
    checked = 0
    with Path(f"/proc/{keeper.pid}/pagemap").open("rb", buffering=0) as file:
        for mapping in sources.mappings(keeper.pid):
            if not mapping.private or mapping.end - mapping.start > 1 << 30 or mapping.name.startswith("[v"):
                continue
            span = mapping.start, mapping.end
            scanned, looked_up = (
                sources._scanned(file.fileno(), *span),
                sources._looked_up(file.fileno(), *span),
            )
            assert pages(scanned) == pages(looked_up), mapping
            checked += 1
    assert checked > 10


def pages(runs: Iterator[tuple[int, int]]) -> set[int]:
    return {page for start, end in runs for page in range(start, end, sources.PAGE_BYTES)}
