"""A lab comes up and goes down, whatever happens to it. Judged by the kernel's own tables."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.wait import eventually
from lab_command import HOSTS, command, migrate_lab, processes_of

from migrate.lab import Lab, LabError
from migrate.lab.cli import main


def machine() -> tuple[str, list[str]]:
    """What the lab must leave alone: the machine's mounts and interfaces."""
    links = json.loads(subprocess.run(["ip", "-json", "link"], capture_output=True, check=True).stdout)
    return Path("/proc/self/mountinfo").read_text(), sorted(str(each["ifname"]) for each in links)


def assert_nothing_left(name: str) -> None:
    assert not Path("/run/migrate-lab", name).exists()
    assert processes_of(name) == []


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name of a lab that is not up; it is taken down afterwards."""
    name = f"t{os.getpid()}-{abs(hash(request.node.name)) % 10000}"
    yield name
    Lab(name).down()


def test_down_leaves_nothing(name: str) -> None:
    before = machine()
    assert migrate_lab(name, "up").returncode == 0
    assert machine() == before
    assert migrate_lab(name, "spawn", "peer", "--", "sleep", "1000").returncode == 0
    eventually(lambda: len(processes_of(name)) == 5 + 4 + 1, "inits, sshds and the sleep alone")
    assert migrate_lab(name, "down").returncode == 0
    assert_nothing_left(name)
    assert machine() == before
    assert migrate_lab(name, "down").returncode == 0


def test_down_leaves_no_cgroup_of_a_migration_that_was_cut_off(name: str) -> None:
    """The process is frozen in it, and killed with the lab."""
    assert migrate_lab(name, "up").returncode == 0
    host, migration_id = Lab(name).hosts["origin"], os.urandom(6).hex()
    made = f"/sys/fs/cgroup/migrate-{migration_id}"
    host.exec(["mkdir", "-p", made, f"/run/migrate/{migration_id}"])
    pid = host.spawn(["sleep", "1000"])
    host.exec(["sh", "-c", f"echo {pid} >{made}/cgroup.procs && echo 1 >{made}/cgroup.freeze"])
    found = ["find", "/sys/fs/cgroup", "-name", f"migrate-{migration_id}"]
    assert subprocess.run(found, capture_output=True, check=True).stdout
    assert migrate_lab(name, "down").returncode == 0
    assert not subprocess.run(found, capture_output=True, check=True).stdout


def test_up_twice_changes_nothing(lab: Lab) -> None:
    before = lab.status()
    again = migrate_lab(lab.name, "up")
    assert again.returncode == 0
    assert "already" in again.stderr
    assert lab.status() == before


def test_status_is_the_contract(lab: Lab) -> None:
    done = migrate_lab(lab.name, "status", "--json")
    status = json.loads(done.stdout)
    assert done.returncode == 0
    assert set(HOSTS) <= set(status["hosts"])
    assert status["hosts"]["destination"]["ipv4"] == "10.77.1.2"
    assert status["hosts"]["destination"]["ipv6"] == "fd77:1::2"
    assert status["service"] == {"ipv4": "10.77.1.100", "ipv6": "fd77:1::100"}


def test_status_of_a_lab_that_is_down(name: str) -> None:
    done = migrate_lab(name, "status", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["up"] is False
    assert migrate_lab(name, "exec", "origin", "--", "true").returncode == 125


@pytest.mark.parametrize("delay_ms", [60, 150, 250, 300, 350, 400, 450, 500, 550, 600, 700])
def test_up_killed_in_its_middle(name: str, delay_ms: int) -> None:
    up = subprocess.Popen(command(name, "up"), stdout=subprocess.DEVNULL)
    time.sleep(delay_ms / 1000)  # The moment of the kill is what is tested.
    up.kill()
    up.wait()
    if not Lab(name).is_up():
        eventually(lambda: processes_of(name) == [] or saved(name), "its hosts end by themselves")
    assert migrate_lab(name, "up").returncode == 0
    assert migrate_lab(name, "exec", "origin", "--", "ssh", "peer", "true").returncode == 0
    eventually(lambda: len(processes_of(name)) == 5 + 4, "the end of that session")
    assert migrate_lab(name, "down").returncode == 0
    assert_nothing_left(name)


def saved(name: str) -> bool:
    """Whether the state was written: from then on hosts may live on without *up*."""
    return Path("/run/migrate-lab", name, "state.json").exists()


@pytest.mark.parametrize("host", [*HOSTS, "segment"])
def test_up_after_an_init_was_killed(name: str, host: str) -> None:
    lab = Lab(name)
    assert lab.up()
    os.kill(lab.hosts[host].init.pid, signal.SIGKILL)
    eventually(lambda: not lab.is_up(), "the init is gone")
    with pytest.raises(LabError, match="not up"):
        lab.hosts[host].exec(["true"])
    assert lab.up()
    eventually(lambda: len(processes_of(name)) == 5 + 4, "the end of that session")
    lab.down()
    assert_nothing_left(name)


def test_init_ends_on_sigterm(name: str) -> None:
    lab = Lab(name)
    lab.up()
    os.kill(lab.hosts["peer"].init.pid, signal.SIGTERM)
    eventually(lambda: not lab.is_up(), "the init is gone")


def test_many_at_once(name: str) -> None:
    verbs = ["up", "up", "down", "up", "down", "up"]
    runs = [subprocess.Popen(command(name, verb), stdout=subprocess.DEVNULL) for verb in verbs]
    # Whether the status printed after "up" finds the lab up depends on the downs beside it.
    assert all(
        run.wait(60) in ((0, 1) if verb == "up" else (0,)) for verb, run in zip(verbs, runs, strict=True)
    )
    assert migrate_lab(name, "up").returncode == 0
    eventually(lambda: len(processes_of(name)) == 5 + 4, "the end of that session")
    assert migrate_lab(name, "down").returncode == 0
    assert_nothing_left(name)


def test_state_of_a_foreign_process_is_not_killed(name: str) -> None:
    bystander = subprocess.Popen(["sleep", "1000"])
    try:
        run = Path("/run/migrate-lab", name)
        run.mkdir(parents=True)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        inits = {"origin": [bystander.pid, 12345]}
        (run / "state.json").write_text(json.dumps({"boot": boot, "inits": inits}))
        assert migrate_lab(name, "down").returncode == 0
        assert bystander.poll() is None
        assert_nothing_left(name)
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("state", ["", "{", "[]", '{"boot": 1}', '{"boot": "x", "inits": {}}', "null"])
def test_broken_state_is_replaced(name: str, state: str) -> None:
    run = Path("/run/migrate-lab", name)
    (run / "origin").mkdir(parents=True)
    (run / "state.json").write_text(state)
    assert migrate_lab(name, "status").returncode == 1
    assert migrate_lab(name, "up").returncode == 0


def test_two_labs_side_by_side(lab: Lab, name: str) -> None:
    with Lab(name) as other:
        other.hosts["origin"].exec(["sh", "-c", "echo other > /root/mine"])
        assert lab.hosts["origin"].exec(["test", "-e", "/root/mine"], check=False).returncode == 1
        for each in (lab, other):
            each.hosts["peer"].exec(["ssh", "origin", "true"])
        assert other.hosts["destination"].exec(["ssh", "origin", "cat", "mine"]).stdout == "other\n"
    lab.hosts["peer"].exec(["ssh", "origin", "true"])
    assert_nothing_left(name)


@pytest.mark.parametrize("bad", ["", "..", "a/b", "A", "x" * 33, "a b", "lab\n"])
def test_names_that_are_refused(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--name", bad, "up"]) == 1
    assert "not a lab's name" in capsys.readouterr().err
