"""Whatever changes what is written down of a lab's machines does so under its lock. No machine is started."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from migrate.lab import LabError, enter, state, topology
from migrate.lab.vm import lab as vm_lab
from migrate.lab.vm import qemu
from migrate.lab.vm.lab import VmLab
from migrate.lab.vm.machines import Machines

CHANGES: list[Callable[[VmLab], object]] = [
    lambda lab: lab.power_on("peer"),
    lambda lab: lab.power_off("peer"),
    lambda lab: lab.reboot("peer"),
    lambda lab: lab.up(),
    lambda lab: lab.down(),
]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VmLab]:
    """One whose segment's init is a process of this machine's, and whose machines are off."""
    monkeypatch.setattr(state, "BASE", tmp_path / "labs")
    monkeypatch.setattr(state, "LOCK_DEADLINE_S", 0.05)
    lab = VmLab("one")
    lab.directory.mkdir(parents=True)
    with subprocess.Popen(["sleep", "600"]) as process:
        init = state.Init(process.pid, enter.start_ticks(process.pid) or 0)
        state.save(lab.directory, {topology.SEGMENT: init})
        machine = qemu.Machine("x", Path("/none"), Path("/none"), "", (), (), Path("/none"))
        Machines(lab.directory, init).describe(dict.fromkeys(topology.HOSTS, machine))
        yield lab
        process.kill()


@pytest.mark.parametrize("change", CHANGES)
def test_one_at_a_time(lab: VmLab, change: Callable[[VmLab], object]) -> None:
    with state.locked("one", vm_lab.KIND), pytest.raises(LabError, match="by another process: try again"):
        change(lab)


@pytest.mark.parametrize("change", CHANGES[:3])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_lab_that_is_down_leaves_no_lock(
    lab: VmLab, monkeypatch: pytest.MonkeyPatch, change: Callable[[VmLab], object], when: str
) -> None:
    """Also where another process brings it down while this one waits for the lock."""

    def forget_first(name: str, kind: str) -> object:
        state.forget(lab.directory)
        return locked(name, kind)

    locked = state.locked
    if when == "before":
        state.forget(lab.directory)
    else:
        monkeypatch.setattr(vm_lab.state, "locked", forget_first)
    with pytest.raises(LabError, match="is not up"):
        change(lab)
    assert not lab.directory.exists()
