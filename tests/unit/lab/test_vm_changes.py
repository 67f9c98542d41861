"""Whatever changes what is written down of a lab's machines does so under its lock. No machine is started."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.wait import eventually

from migrate.lab import LabError, cli, enter, state, topology
from migrate.lab.vm import lab as vm_lab
from migrate.lab.vm import qemu
from migrate.lab.vm.lab import VmLab
from migrate.lab.vm.machines import FILE, Machines

MACHINE = qemu.Machine("x", Path("/none"), Path("/none"), "", (), (), Path("/none"))
CHANGES: list[Callable[[VmLab], object]] = [
    lambda lab: lab.power_on("peer"),
    lambda lab: lab.power_off("peer"),
    lambda lab: lab.reboot("peer"),
    lambda lab: lab.up(),
    lambda lab: lab.down(),
]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VmLab]:
    """One whose segment's init is in a PID namespace, which machines of other labs are not in; its own are off."""
    monkeypatch.setattr(state, "BASE", tmp_path / "labs")
    monkeypatch.setattr(state, "LOCK_DEADLINE_S", 0.05)
    lab = VmLab("one")
    lab.directory.mkdir(parents=True)
    alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with subprocess.Popen([*alone, "sleep", "600"]) as process:
        eventually(
            lambda: len(list(Path(f"/proc/{process.pid}/root/proc").glob("[0-9]*"))) == 1, "it is alone"
        )
        init = state.Init(process.pid, enter.start_ticks(process.pid) or 0)
        state.save(lab.directory, {topology.SEGMENT: init})
        Machines(lab.directory, init).describe(dict.fromkeys(topology.HOSTS, MACHINE))
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


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "{}", '{"peer": {}}', '{"peer": 3}', "[" * 100_000, "bad accelerator"]
)
@pytest.mark.parametrize("change", CHANGES[:3])
def test_what_is_written_down_and_damaged_is_told(
    lab: VmLab, change: Callable[[VmLab], object], damage: str
) -> None:
    """With what helps; and whoever only looks is not stopped by it."""
    file = lab.directory / FILE
    bad = json.loads(file.read_text()) | {
        "peer": {**json.loads(file.read_text())["peer"], "accelerator": "x"}
    }
    file.write_text(json.dumps(bad) if damage.startswith("bad") else damage)
    said = f"{file} is not as it was written: `migrate-lab --vm --name one down`, then `up`, makes it anew"
    if change is not CHANGES[1]:  # What is off needs no description to be switched off.
        with pytest.raises(LabError, match=re.escape(said)):
            change(lab)
    assert lab.status()["up"] is False


def test_whoever_waits_for_a_machine_is_told_that_its_lab_is_taken_down(
    lab: VmLab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the moment that this begins: a machine that is about to end does not answer, which needs no remedy."""
    machines = lab.machines
    monkeypatch.setattr(Machines, "is_on", lambda *_: True)
    monkeypatch.setattr(Machines, "silent", lambda _, names: (machines.forget(), list(names))[1])
    with pytest.raises(LabError, match="lab 'one' was taken down meanwhile"):
        machines.wait_ready("peer")
    lab.machines.describe(dict.fromkeys(topology.HOSTS, MACHINE))
    monkeypatch.setattr(VmLab, "up", lambda _: True)
    assert cli.up(lab, wishes=False) == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "lab 'one' is down"
    assert said.err == "migrate-lab: lab 'one' was taken down meanwhile\n"


def test_a_machine_whose_kernel_has_stopped_is_told_in_a_sentence_first(
    lab: VmLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its console ends with was a page, and what helps came after it."""
    console = "LAB READY\n" + "x\n" * 40 + "Kernel panic - not syncing: sysrq\n---[ end Kernel panic ]---\n"
    monkeypatch.setattr(Machines, "is_on", lambda *_: True)
    monkeypatch.setattr(Machines, "silent", lambda _, names: [name for name in names if name == "peer"])
    monkeypatch.setattr(Machines, "_said", lambda *words: console if words[-1] == "console" else "")
    sentence = (
        "peer does not answer: its kernel has stopped, as its console says;"
        " `migrate-lab --vm --name one power peer off`, then `on`, boots it anew"
    )
    with pytest.raises(LabError) as caught:
        lab.power_on("peer")
    lines = str(caught.value).splitlines()
    assert lines[:3] == [sentence, "the end of its console:", "LAB READY"]
    with pytest.raises(LabError, match=re.escape(sentence) + "$"):
        lab.up()
    assert f": {sentence}" in cli.in_a_word(lab.status())
    console += "LAB READY\n"  # It has booted by itself.
    assert not lab.machines.has_stopped("peer")


@pytest.mark.parametrize(("wanted", "before"), [("on", "off"), ("off", "on")])
def test_power_says_what_a_machine_is_then(
    lab: VmLab,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wanted: str,
    before: str,
) -> None:
    """And whether it was so already; both are well."""
    is_on = [before == "on"]
    monkeypatch.setattr(Machines, "is_on", lambda *_: is_on[0])
    monkeypatch.setattr(Machines, "_pid", lambda *_: int(is_on[0]))
    monkeypatch.setattr(Machines, "_need_files", lambda *_: None)
    monkeypatch.setattr(Machines, "_spawn", lambda *_: is_on.__setitem__(0, True))
    monkeypatch.setattr(Machines, "_inside", lambda *_: is_on.__setitem__(0, False))
    monkeypatch.setattr(Machines, "silent", lambda *_: [])
    assert [cli.power(lab, "peer", wanted) for _ in range(2)] == [0, 0]
    assert capsys.readouterr().out == f"peer is {wanted}\npeer was {wanted} already\n"


@pytest.mark.parametrize("on", [True, False])
def test_an_up_that_asks_for_other_machines_is_refused(
    lab: VmLab, monkeypatch: pytest.MonkeyPatch, on: bool
) -> None:
    """Whether they are on or not, before one is started; those that were made are fine."""
    started: list[object] = []
    monkeypatch.setattr(Machines, "is_on", lambda *_: on)
    monkeypatch.setattr(Machines, "silent", lambda *_: [])
    monkeypatch.setattr(VmLab, "_switch_on", lambda _, names: started.extend(names))
    fields = MACHINE._replace(clock_s=5, cpu="Haswell")
    lab.machines.describe(dict.fromkeys(topology.HOSTS, fields))
    said = (
        "lab 'one' differs from what is asked for: peer has the clock 5, not 6; none of that is changed of"
        " machines that there are: `migrate-lab --vm --name one down`, then `up`, makes it anew"
    )
    with pytest.raises(LabError, match=re.escape(said)):
        VmLab("one", clocks={"peer": 6, "origin": 5}).up()
    assert started == []
    assert VmLab("one", clocks={"peer": 5}, cpus={"origin": "Haswell"}).up() is not on
    assert started == ([] if on else list(topology.HOSTS))


def test_down_tells_of_itself_before_anything_ends(lab: VmLab, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    end = state.end
    monkeypatch.setattr(
        vm_lab.state, "end", lambda inits: (seen.append(lab.machines.is_taken_down()), end(inits))
    )
    assert lab.down()
    assert seen == [True]


@pytest.mark.parametrize("gone", ["kernel", "image", "modules"])
def test_a_cache_that_is_removed_below_a_lab_is_told(lab: VmLab, tmp_path: Path, gone: str) -> None:
    """What QEMU said of it was all that one heard; a disk that is written to is the lab's own."""
    kept = {name: tmp_path / name for name in ("kernel", "image", "modules")}
    for name in set(kept) - {gone}:
        kept[name].touch()
    disks = ((Path("/run/vm/disks/peer"), True), (kept["modules"], False))
    machine = MACHINE._replace(kernel=kept["kernel"], image=kept["image"], disks=disks)
    lab.machines.describe(dict.fromkeys(topology.HOSTS, machine))
    helps = "`migrate-lab --vm --name one down`, then `up`, makes it anew"
    with pytest.raises(LabError, match=f"{kept[gone]} is gone, of which peer was made: {helps}"):
        lab.power_on("peer")
